#!/usr/bin/env bash
# Builds this project's images, and runs commands in them, on a Debian machine with neither a container engine nor an image
# registry: as root, by buildah in chroot isolation, on a base that is made here once from the machine's own Debian mirror.
#
#   docker/build-without-engine.sh NAME DOCKERFILE [buildah build options...]
#       e.g. docker/build-without-engine.sh carsearch:cpu docker/cpu.Dockerfile --build-arg VERSION=0.1.0
#   docker/build-without-engine.sh --run NAME [-v HOST:CONTAINER[:ro]]... [-e NAME=VALUE]... -- COMMAND...
#       as docker-compose.yml runs it: as the image's own user, without privileges, on a read-only root file system with an
#       empty /tmp; but on the host's network. A signal to this script goes to the command, whose status is passed on.
#
# PYTHON_IMAGE in the environment names another base. The one made here has Debian's python3, not the public image's.
# Layers stay for the next build; "buildah rmi --prune" throws away those that no image has.
# The certificates and pip's configuration of this machine are lent to the build, so that its mirrors work there as well.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
child=      # what runs now
container=  # a container of --run
scratch=    # a directory
containers_before=  # in a build: the containers of others

say() { echo "$*" >&2; }

end_child() {
  [ -n "$child" ] || return 0
  kill -"$1" "$child" 2>/dev/null || true
  wait "$child" 2>/dev/null || true
  child=
}

clean_up() {
  status=$?
  trap '' HUP INT TERM
  end_child KILL  # still there only when this script was stopped before it was done
  if [ -n "$container" ]; then buildah rm "$container" >/dev/null 2>&1 || true; fi
  if [ -n "$containers_before" ]; then  # a build that was killed leaves its containers
    comm -13 "$containers_before" <(buildah containers --quiet | sort) | xargs -r buildah rm >/dev/null || true
  fi
  if [ -n "$scratch" ]; then rm -rf --one-file-system "$scratch"; fi
  exit "$status"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# Runs a command so that a signal ends this script, and the command, at once. In namespaces of its own nothing of it
# survives: neither a process nor a mount.
attend() {
  setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc -- "$@" <&0 &
  child=$!
  wait "$child"
  child=
}

need() {
  local missing=() pair
  for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# One at a time; file descriptor 9 holds the lock, and no child may keep it.
lock() { exec 9>"/run/lock/carsearch-images"; flock 9; }

make_base() {  # SUITE NAME
  say "making the base $2, once; it takes a minute"
  local mirror
  mirror=$(grep -rhoE '^(URIs:|deb( \[[^]]*\])?) +[a-z]+://\S+' /etc/apt/sources.list /etc/apt/sources.list.d/debian.* 2>/dev/null |
    head -n 1 | grep -oE '[a-z]+://\S+' || true)
  mkdir "$scratch/base"
  attend debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$1" "$scratch/base" \
    ${mirror:+"$mirror"} 9>&- >"$scratch/debootstrap.log" || { tail -n 20 "$scratch/debootstrap.log" >&2; exit 1; }
  rm -rf "$scratch/base"/var/cache/apt/* "$scratch/base"/var/lib/apt/lists/* "$scratch/base"/var/log/*
  container=$(buildah from scratch 9>&-)
  buildah add --quiet "$container" "$scratch/base" / >/dev/null 9>&-
  buildah commit --quiet --rm "$container" "$2" >/dev/null 9>&-
  container=
}

build() {  # NAME DOCKERFILE OPTIONS...
  local name=$1 file=$2 base=${PYTHON_IMAGE:-} suite mounts=()
  shift 2
  need buildah:buildah debootstrap:debootstrap
  lock
  export TMPDIR=${TMPDIR:-/var/tmp}
  rm -rf --one-file-system "$TMPDIR"/carsearch-build.*  # of builds that were killed outright; the lock is ours
  scratch=$(mktemp -d -p "$TMPDIR" carsearch-build.XXXXXX)
  TMPDIR=$scratch  # where buildah works
  if [ -z "$base" ]; then
    # shellcheck source=/dev/null
    suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "$VERSION_CODENAME" || echo bookworm)
    base=localhost/carsearch-base:$suite
    buildah inspect --type image "$base" >/dev/null 2>&1 || make_base "$suite" "$base"
  fi
  if [ -f /etc/pip.conf ]; then mounts+=(-v /etc/pip.conf:/etc/pip.conf:ro); fi
  if [ -d /etc/ssl/certs ]; then mounts+=(-v /etc/ssl/certs:/etc/ssl/certs:ro); fi
  buildah containers --quiet | sort >"$scratch/containers"
  containers_before=$scratch/containers
  # docker's own format, because the other one has no HEALTHCHECK; layers are kept for the next build. The label is for
  # buildah 1.28, which takes a LABEL of an ARG from an earlier build, whatever the argument is now.
  attend buildah build --isolation chroot --network host --format docker --layers --build-arg PYTHON_IMAGE="$base" \
    --label carsearch.build-options="$*" "${mounts[@]}" "$@" -t "$name" -f "$file" "$here" 9>&-
}

# In a mount namespace of its own: makes a container's root file system what a read-only container sees, and becomes the
# command. Arguments: ROOT USER DIRECTORY, mounts, "--", environment, "--", the command.
enter() {
  local root=$1 user=$2 directory=$3 mounts=() environment=() mount host inside options name
  shift 3
  while [ "$1" != -- ]; do mounts+=("$1"); shift; done
  shift
  while [ "$1" != -- ]; do environment+=("$1"); shift; done
  shift
  mount --bind "$root" "$root"
  mkdir -p "$root"/{proc,sys,dev,tmp}
  mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs "$root/tmp"
  for mount in "${mounts[@]}"; do
    IFS=: read -r host inside options <<<"$mount"
    if [ -d "$host" ]; then mkdir -p "$root$inside"; else mkdir -p "$(dirname "$root$inside")"; touch "$root$inside"; fi
  done
  mount -o remount,bind,ro "$root"
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount --rbind -o ro /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  for name in resolv.conf hosts; do
    if [ -e "$root/etc/$name" ]; then mount --bind "/etc/$name" "$root/etc/$name"; fi
  done
  for mount in "${mounts[@]}"; do
    IFS=: read -r host inside options <<<"$mount"
    mount --bind "$host" "$root$inside"
    if [ "$options" = ro ]; then mount -o remount,bind,ro "$root$inside"; fi
  done
  # The command ends with this script, also when that is killed outright.
  exec chroot --userspec="$user" --groups= "$root" env -i --chdir="$directory" "${environment[@]}" \
    setpriv --no-new-privs --pdeathsig TERM -- "$@"
}

run() {  # NAME [-v ...] [-e ...] -- COMMAND...
  local name=$1 mounts=() environment=() user directory root stale ours
  shift
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
      -v) mounts+=("$2") ;;
      -e) environment+=("$2") ;;
      *) say "--run NAME [-v HOST:CONTAINER[:ro]]... [-e NAME=VALUE]... -- COMMAND..."; exit 2 ;;
    esac
    shift 2
  done
  [ $# -gt 1 ] || { say "no command for $name, after --"; exit 2; }
  shift
  need buildah:buildah
  for stale in $(buildah containers --format '{{.ContainerName}}' | grep -E '^carsearch-run-[0-9]+$' || true); do
    [ -d "/proc/${stale##*-}" ] || buildah rm "$stale" >/dev/null || true  # of a script that was killed outright
  done
  container=carsearch-run-$$
  buildah from --name "$container" --pull-never "$name" >/dev/null
  root=$(buildah mount "$container")
  user=$(buildah inspect --type image --format '{{.OCIv1.Config.User}}' "$name")
  directory=$(buildah inspect --type image --format '{{.OCIv1.Config.WorkingDir}}' "$name")
  mapfile -t ours < <(buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$name" | grep .)
  unshare --mount --propagation private -- "$0" --enter "$root" "${user:-0:0}" "${directory:-/}" \
    "${mounts[@]}" -- "${ours[@]}" "${environment[@]}" -- "$@" <&0 &
  child=$!
  trap 'kill -TERM "$child" 2>/dev/null' HUP INT TERM
  local status=0
  while kill -0 "$child" 2>/dev/null; do  # a signal ends wait, not the command
    status=0; wait "$child" || status=$?
  done
  child=
  exit "$status"
}

[ $# -ge 2 ] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { say "This needs root: buildah's chroot isolation and debootstrap do."; exit 1; }
case $1 in
  --enter) trap - EXIT HUP INT TERM; shift; enter "$@" ;;
  --run) shift; run "$@" ;;
  *) build "$@" ;;
esac
