#!/usr/bin/env bash
# Builds the CPU image without a container engine and asks whether it does what docs/deploy.md says of it: what is in it and
# what is not, its size, the demo, and an index and a search over HTTP, all as its own user on a read-only root file system.
#   docker/test-image.sh [IMAGE]      carsearch:cpu by default
set -euo pipefail
cd "$(dirname "$0")/.."

image=${1:-carsearch:cpu}
max_mb=700           # on the public base
public_base_mb=130   # what that base takes, unpacked; it cannot be had here
user=10001
grace_s=45           # what docker-compose.yml gives a server to end
child=   # what runs now
server=  # and beside it
passed=0
scratch=$(mktemp -d -p "${TMPDIR:-/var/tmp}" carsearch-test.XXXXXX)

clean_up() {
  status=$?
  trap '' HUP INT TERM
  for pid in $child $server; do { kill "$pid" && wait "$pid"; } 2>/dev/null || true; done
  rm -rf --one-file-system "$scratch"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

fail() { echo "FAILED: $*" >&2; exit 1; }
ok() { passed=$((passed + 1)); echo "ok: $*"; }

# Both in the background, so that a signal to this script ends them and it at once.
builder() {
  local status=0
  docker/build-without-engine.sh "$@" <&0 &
  child=$!
  wait "$child" || status=$?
  child=
  return "$status"
}
# The directories that docker-compose.yml gives volumes, and the gallery.
run=(--run "$image" -v "$PWD/service/demo/data/gallery:/gallery:ro")
for name in index state cache spool; do run+=(-v "$scratch/$name:/$name"); done
label() { buildah inspect --type image --format "{{index .OCIv1.Config.Labels \"org.opencontainers.image.$1\"}}" "$image"; }
megabytes() { local size; size=$(buildah images --format '{{.Size}}' "$1" | head -n 1); echo $(($(numfmt --from=si "${size//[ B]/}") / 1000000)); }
get() { curl -sS --noproxy '*' --max-time 20 "$@"; }

# --- The build -----------------------------------------------------------------------------------------------------
began=$SECONDS
version=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
builder "$image" docker/cpu.Dockerfile --build-arg VERSION="$version" --build-arg REVISION="$revision" \
  >"$scratch/build.log" 2>&1 || { tail -n 40 "$scratch/build.log" >&2; fail "the image does not build"; }
[ "$(label version) $(label revision)" = "$version $revision" ] || fail "the labels do not name what was built"
build_s=$((SECONDS - began))
ok "built in $build_s s"
install -d -o "$user" -g "$user" "$scratch"/{index,state,cache,spool}

total_mb=$(megabytes "$image")
own_mb=$((total_mb - $(megabytes "$(label base.name)")))
public_mb=$((own_mb + public_base_mb))
[ "$public_mb" -le "$max_mb" ] || fail "the image takes about $public_mb MB on the public base; $max_mb are allowed"
ok "$total_mb MB, $own_mb without its base, about $public_mb on the public one"

# --- What is in it, as its user sees it ----------------------------------------------------------------------------
cat >"$scratch/contents.sh" <<'INSIDE'
set -eu
wrong() { echo "$*" >&2; exit 1; }
[ "$(id -u):$(id -g)" = 10001:10001 ] || wrong "runs as $(id)"
base=$(readlink -f /opt/carsearch/bin/python)
for tool in pip pip3 gcc cc c++ g++ clang make ld as; do
  if command -v "$tool" >/dev/null; then wrong "has $tool"; fi
done
for module in torch torchvision pip setuptools bench; do
  for python in /opt/carsearch/bin/python "$base"; do
    if "$python" -c "import $module" 2>/dev/null; then wrong "$python has $module"; fi
  done
done
if touch /anywhere 2>/dev/null; then wrong "the root file system can be written to"; fi
if touch /gallery/anything 2>/dev/null; then wrong "the gallery can be written to"; fi
for directory in /index /delta /state /cache /spool /tmp; do touch "$directory/probe" && rm "$directory/probe"; done
# Also where the root file system may be written to, nothing but these belongs to the user or to everybody.
mine=$(find / -xdev \( -user 10001 -o -group 10001 -o -perm -0002 \) ! -type l -print 2>/dev/null |
  grep -vE '^/(proc|sys|dev)(/|$)' | sort | tr '\n' ' ')
for path in $mine; do
  case $path in
    /models | /index | /delta | /state | /cache | /spool | /tmp | /var/tmp | /run/lock) ;;
    *) wrong "the user may write to $path" ;;
  esac
done
odd=$(find / -xdev -type f -perm /6000 2>/dev/null | head -n 1)
[ -z "$odd" ] || wrong "$odd runs as somebody else"
cached=$(find / -xdev -name .cache 2>/dev/null | head -n 1)
[ -z "$cached" ] || wrong "there is a cache: $cached"
/opt/carsearch/bin/python -c '
import importlib.util, pathlib
sources = pathlib.Path("/opt/carsearch/lib").rglob("*.py")
late = [str(path) for path in sources if not pathlib.Path(importlib.util.cache_from_source(path)).exists()]
raise SystemExit(f"not compiled: {late[:3]}" if late else 0)'
/opt/carsearch/bin/python -c 'import opentelemetry.sdk.trace, opentelemetry.exporter.otlp.proto.http'
INSIDE
builder "${run[@]}" -- sh -s <"$scratch/contents.sh" || fail "what is in the image, above"
ok "no torch, compiler, pip or bench; user $user on a read-only root file system, bytecode and traces included"

builder "${run[@]}" -- carsearch demo --check >"$scratch/demo.log" 2>&1 || { cat "$scratch/demo.log" >&2; fail "carsearch demo --check"; }
ok "carsearch demo --check: $(grep -m 1 -oE 'top-1 [0-9.]+ of [0-9]+' "$scratch/demo.log")"

# --- An index and a search -----------------------------------------------------------------------------------------
builder "${run[@]}" -- carsearch index /gallery --index /index --model resnet18 >"$scratch/index.log" 2>&1 ||
  { cat "$scratch/index.log" >&2; fail "carsearch index"; }
ok "carsearch index of the read-only gallery: $(grep -oE '[0-9]+ photos of [0-9]+ classes' "$scratch/index.log")"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
url=http://127.0.0.1:$port
docker/build-without-engine.sh "${run[@]}" -- carsearch serve --host 127.0.0.1 --port "$port" >"$scratch/serve.log" 2>&1 &
server=$!
for _ in $(seq 240); do
  if get -f -o /dev/null "$url/readyz" 2>/dev/null; then break; fi
  kill -0 "$server" 2>/dev/null || { cat "$scratch/serve.log" >&2; fail "the server ended"; }
  sleep 0.5
done
expected=$(python3 -c 'import json; print(json.load(open("service/demo/data/contents.json"))["queries"][0]["label"])')
answer=$(get -F file=@service/demo/data/queries/1.jpg "$url/search?k=3") || { cat "$scratch/serve.log" >&2; fail "POST /search"; }
found=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["nearest"]["class"])' "$answer") || fail "POST /search: $answer"
[ "$found" = "$expected" ] || fail "POST /search found $found and not $expected"
ok "POST /search found $found"

# The image's own health check, but on this server's port.
mapfile -t health < <(buildah inspect --type image --format '{{range .Docker.Config.Healthcheck.Test}}{{println .}}{{end}}' "$image" |
  grep . | tail -n +2 | sed "s/8000/$port/")
builder "${run[@]}" -- "${health[@]}" || fail "the health check does not see a server that answers"

kill -TERM "$server"
for _ in $(seq $((grace_s * 10))); do
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
if kill -0 "$server" 2>/dev/null; then fail "the server did not end within $grace_s s of SIGTERM"; fi
status=0
wait "$server" || status=$?
server=
case $status in
  0 | 143) ;;  # 143: ended by the SIGTERM itself, after the requests were answered
  *) cat "$scratch/serve.log" >&2; fail "the server ended with status $status" ;;
esac
if builder "${run[@]}" -- "${health[@]}" 2>/dev/null; then fail "the health check sees a server that has ended"; fi
ok "healthy while it served; ended by SIGTERM with status $status"

echo "the CPU image serves: $passed passed, 0 failed; $total_mb MB, $own_mb without its base, about $public_mb on the public one;" \
  "built in $build_s s, all in $((SECONDS - began)) s"
