import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buildBundle, sizeOf } from "../../support/program/bundle.ts";
import { figure, type Row } from "../row.ts";

const KIB = 1_024;

const bundleSize: Row = {
  name: "bundle-size",
  about: "what is uploaded, minified",
  builds: [],
  async run() {
    const { bytes, gzipBytes } = sizeOf(
      await buildBundle(mkdtempSync(join(tmpdir(), "sallyport-bundle-")), { minify: true }),
    );
    return {
      figures: [
        figure("minified", "KiB", [bytes / KIB], "≤ 400"),
        figure("minified and compressed", "KiB", [gzipBytes / KIB]),
      ],
    };
  },
};

export default bundleSize;
