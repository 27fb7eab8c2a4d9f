// Classify images in JavaScript with a model that `fedmedclip deploy` wrote:
//
//     npm install onnxruntime-web pngjs
//     node classify.mjs model.onnx image.png...
//
// The images must have the model's size already; docs/how-to/deploy.md says how to make them. Prints a JSON line each.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-web";
import { PNG } from "pngjs";

const [model, ...paths] = process.argv.slice(2);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(await readFile(model));
const pictures = await Promise.all(paths.map(async (path) => PNG.sync.read(await readFile(path))));
const { width, height } = pictures[0];
const pixels = new Uint8Array(pictures.length * height * width * 3);
pictures.forEach((picture, index) => {
  if (picture.width !== width || picture.height !== height) throw new Error(`${paths[index]} has another size`);
  for (let pixel = 0; pixel < width * height; pixel++)
    for (let channel = 0; channel < 3; channel++)
      pixels[(index * width * height + pixel) * 3 + channel] = picture.data[pixel * 4 + channel]; // RGBA to RGB
});
const image = new ort.Tensor("uint8", pixels, [pictures.length, height, width, 3]);
const { probabilities, ensemble_weight } = await session.run({ image });
const classes = probabilities.dims[1];
paths.forEach((path, index) => {
  const row = Array.from(probabilities.data.slice(index * classes, (index + 1) * classes));
  console.log(JSON.stringify({ path, probabilities: row, ensemble_weight: ensemble_weight.data[index] }));
});
