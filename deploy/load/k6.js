// regard.v1 and the Open Inference Protocol under load, for k6; from this folder:
//   k6 run -e SERVER=127.0.0.1:8001 -e MODEL=minilm -e IMAGE_MODEL=fashion k6.js
// RATE requests a second for DURATION, whatever the answers take; the thresholds decide whether it passes. Every RPC but
// management is called; those of a model that is not named are left out.
import { Client, Stream, StatusOK } from "k6/net/grpc";
import encoding from "k6/encoding";
import { check } from "k6";

const server = __ENV.SERVER || "127.0.0.1:8001";
const model = __ENV.MODEL || "";
const imageModel = __ENV.IMAGE_MODEL || "";
const metadata = __ENV.REGARD_TOKEN ? { authorization: `Bearer ${__ENV.REGARD_TOKEN}` } : {};
const text = "A quiet film that stays with you.";
const bytes = encoding.b64encode(text);
const image = encoding.b64encode(open("../../examples/clothing/sneaker.png", "b"));
const own = "regard.v1.RegardService";
const standard = "inference.GRPCInferenceService";
const tensor = (number) => ({
  dtype: "DATA_TYPE_INT64",
  shape: [1, 16],
  data: encoding.b64encode(new BigInt64Array(16).fill(number).buffer),
});
const [ids, mask] = [tensor(5n), tensor(1n)];

const infer = () => ({
  modelName: model,
  inputs: [{ name: "text", datatype: "BYTES", shape: [1], contents: { bytesContents: [bytes] } }],
});
const unary = [
  [`${own}/ListModels`, () => ({})],
  [`${standard}/ServerLive`, () => ({})],
  [`${standard}/ServerReady`, () => ({})],
  [`${standard}/ServerMetadata`, () => ({})],
];
if (model) {
  unary.push(
    [`${own}/Embed`, () => ({ model, text })],
    [`${own}/Embed`, () => ({ model, text, attention: { layers: [-1], clsOnly: true } })],
    [`${own}/Predict`, () => ({ model, inputs: { input_ids: ids, attention_mask: mask } })],
    [`${own}/GetModel`, () => ({ model })],
    [`${standard}/ModelInfer`, infer],
    [`${standard}/ModelReady`, () => ({ name: model })],
    [`${standard}/ModelMetadata`, () => ({ name: model })],
    [`${standard}/ModelConfig`, () => ({ name: model })],
    [`${standard}/ModelStatistics`, () => ({ name: model })],
  );
}
if (imageModel) {
  unary.push([`${own}/Classify`, () => ({ model: imageModel, image })]);
}
const streams = model ? [[`${own}/Attend`, () => ({ model, text })], [`${standard}/ModelStreamInfer`, infer]] : [];

const client = new Client();
client.load(["../../proto"], "regard/v1/regard.proto");
client.load(["../../proto/inference"], "open_inference.proto");

export const options = {
  scenarios: {
    open: {
      executor: "constant-arrival-rate",
      rate: Number(__ENV.RATE || 20),
      timeUnit: "1s",
      duration: __ENV.DURATION || "30s",
      preAllocatedVUs: 20,
      maxVUs: 500,
    },
  },
  thresholds: { checks: ["rate>0.99"], grpc_req_duration: [`p(99)<${__ENV.P99_MS || 1000}`] },
};

let connected = false;

export default function () {
  if (!connected) {
    client.connect(server, { plaintext: !__ENV.TLS });
    connected = true;
  }
  const place = Math.floor(Math.random() * (unary.length + streams.length));
  if (place >= unary.length) {
    return ask(...streams[place - unary.length]);
  }
  const [method, make] = unary[place];
  const response = client.invoke(method, make(), { metadata });
  check(response, { [method]: (it) => it.status === StatusOK });
}

function ask(method, make) {
  const stream = new Stream(client, method, { metadata });
  let messages = 0;
  stream.on("data", () => {
    messages += 1;
  });
  stream.on("error", (error) => check(error, { [method]: () => false }));
  stream.on("end", () => check(messages, { [method]: (it) => it > 0 }));
  stream.write(make());
  stream.end();
}
