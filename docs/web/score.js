// A file of `deepregions export`, run with onnxruntime-web: all that another page needs.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

ort.env.wasm.numThreads = 1; // more need a server that sends cross-origin isolation headers
ort.env.logLevel = "fatal"; // errors are thrown, and shown

/**
 * Opens an exported file.
 * @param {Uint8Array} bytes its content
 * @returns {Promise<{session: ort.InferenceSession, facts: object}>}
 */
export async function open(bytes) {
  const text = readFacts(bytes);
  if (text === undefined) throw new Error("the model is not a whole file of deepregions export");
  const facts = JSON.parse(text);
  if (facts.takes !== "image") {
    throw new Error("the model takes ready crops: export it without --crops-in");
  }
  try {
    return { session: await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] }), facts };
  } catch (error) {
    throw new Error(`onnxruntime-web cannot load the model: ${error.message}`);
  }
}

/**
 * Scores one face.
 * @param {{session: ort.InferenceSession, facts: object}} model of open()
 * @param {{width: number, height: number, data: Uint8ClampedArray}} image RGBA, as a canvas gives
 * @param {number[][]} landmarks 68 x, y in pixels of the image
 * @returns {Promise<{cells: {detector: string, region: string, logOdds: number}[], fused: number,
 *   llr: number | undefined}>} the cells that are valid; fused is NaN where none is
 */
export async function score({ session, facts }, image, landmarks) {
  const { width, height, data } = image;
  const pixels = new Uint8Array(3 * width * height); // red, green, blue, each a plane
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) pixels[c * width * height + i] = data[4 * i + c];
  }
  const answers = await session.run({
    image: new ort.Tensor("uint8", pixels, [1, 3, height, width]),
    landmarks: new ort.Tensor("float32", Float32Array.from(landmarks.flat()), [1, 68, 2]),
  });
  const cells = facts.detectors
    .flatMap((detector) => facts.regions.map((region) => ({ detector, region })))
    .map((cell, i) => ({ ...cell, logOdds: answers.logits.data[i], valid: answers.valid.data[i] }))
    .filter((cell) => cell.valid);
  return { cells, fused: answers.fused.data[0], llr: answers.llr?.data[0] };
}

/**
 * The file's metadata, which onnxruntime-web does not give: ONNX's ModelProto has them in field 14
 * (metadata_props), each with a key (1) and a value (2).
 */
function readFacts(bytes) {
  try {
    for (const [field, content] of fields(bytes)) {
      if (field !== 14) continue;
      const entry = new Map(fields(content));
      if (decode(entry.get(1)) === "deepregions") return decode(entry.get(2));
    }
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
  }
  return undefined;
}

const decode = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

/** Yields number and content of a protobuf message's fields that have a length. */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    for (let value = 0, shift = 1; ; shift *= 128) {
      if (at >= bytes.length) throw new RangeError("cut short");
      value += (bytes[at] & 127) * shift;
      if (bytes[at++] < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const end = varint() + at;
      if (end > bytes.length) throw new RangeError("cut short");
      yield [Math.floor(tag / 8), bytes.subarray(at, end)];
      at = end;
    } else throw new RangeError("not protobuf");
  }
}
