// Asks a server through the client that openapi-generator has generated for TypeScript; see ../test_clients.py.
import { Configuration, GalleryApi, type Problem, ProblemFromJSON, ResponseError, SearchApi } from "./client/index.js";

declare const process: { argv: string[] };
declare function readFile(path: string): Promise<ArrayBuffer>;
const [url, malformed, full, unready, key, photo, text] = process.argv.slice(2) as [
  string, string, string, string, string, string, string,
];
const { readFile: read } = await import("node:fs/promises" as string) as { readFile: typeof readFile };

const configured = (basePath: string, accessToken: string) => new Configuration({ basePath, accessToken });

async function asked(server: string, path = photo, apiKey = key, narrowed: { _class?: string[]; where?: string } = {}) {
  const file = new Blob([await read(path)]);
  return new SearchApi(configured(server, apiKey)).search({ file, k: 2, ...narrowed });
}

async function refused(asking: ReturnType<typeof asked>) {
  try {
    await asking;
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    const problem: Problem = ProblemFromJSON(await error.response.json());
    console.log(problem.status, problem.code);
    return;
  }
  throw new Error("it was answered");
}

const found = await asked(url);
if (!found.nearest) throw new Error("nothing found");
console.log("search", found.nearest._class);
console.log("filtered", ...(await asked(url, photo, key, { _class: ["car 2"] })).results.map((hit) => hit._class));
for (const hit of (await asked(url, photo, key, { where: "price > 1000000" })).results) {
  console.log("where", hit._class, hit.metadata.price, hit.metadata.colour);
}
const image = await new GalleryApi(configured(url, key)).getGalleryImage({ identity: found.nearest.id });
const begun = [...new Uint8Array(await image.arrayBuffer()).slice(0, 3)].map((byte) => byte.toString(16));
console.log("image", begun.join(""));
await refused(asked(malformed));
await refused(asked(url, photo, "none"));
await refused(asked(url, text));
await refused(asked(url, photo, key, { _class: ["spaceship"] }));
await refused(asked(full));
await refused(asked(unready));
