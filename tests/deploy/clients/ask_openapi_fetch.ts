// Asks a server through the types that openapi-typescript has generated; see ../test_clients.py.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema";

type Problem = components["schemas"]["Problem"];

declare const process: { argv: string[] };
declare function readFile(path: string): Promise<ArrayBuffer>;
const [url, malformed, full, unready, key, photo, text] = process.argv.slice(2) as [
  string, string, string, string, string, string, string,
];
const { readFile: read } = await import("node:fs/promises" as string) as { readFile: typeof readFile };

async function asked(server: string, path = photo, apiKey = key, narrowed: { class?: string[]; where?: string } = {}) {
  const client = createClient<paths>({ baseUrl: server, headers: { "X-Api-Key": apiKey } });
  const file = new Blob([await read(path)]);
  return client.POST("/search", {
    params: { query: { k: 2, ...narrowed } },
    body: { file: "" }, // OpenAPI calls bytes a string; the serializer below sends them
    bodySerializer: () => {
      const form = new FormData();
      form.append("file", file, "photo.jpg");
      return form;
    },
  });
}

async function refused(asking: ReturnType<typeof asked>) {
  const { error, response } = await asking;
  if (!error) throw new Error("it was answered");
  const problem: Problem = error;
  console.log(response.status, problem.code);
}

const { data: found } = await asked(url);
if (!found?.nearest) throw new Error("nothing found");
console.log("search", found.nearest.class);
const { data: some } = await asked(url, photo, key, { class: ["car 2"] });
console.log("filtered", ...(some?.results ?? []).map((hit) => hit.class));
const { data: priced } = await asked(url, photo, key, { where: "price > 1000000" });
for (const hit of priced?.results ?? []) console.log("where", hit.class, hit.metadata.price, hit.metadata.colour);
const client = createClient<paths>({ baseUrl: url, headers: { "X-Api-Key": key } });
const { data: image } = await client.GET("/gallery/{identity}/image", {
  params: { path: { identity: found.nearest.id } },
  parseAs: "arrayBuffer",
});
const begun = [...new Uint8Array(image!).slice(0, 3)].map((byte) => byte.toString(16));
console.log("image", begun.join(""));
await refused(asked(malformed));
await refused(asked(url, photo, "none"));
await refused(asked(url, text));
await refused(asked(url, photo, key, { class: ["spaceship"] }));
await refused(asked(full));
await refused(asked(unready));
