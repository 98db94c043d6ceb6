// The standard protocol and regard.v1 under load, for k6: k6 run -e SERVER=127.0.0.1:8001 deploy/load/k6.js
// RATE requests a second for DURATION, whatever the answers take; thresholds decide whether it passes.
import { Client, StatusOK } from "k6/net/grpc";
import encoding from "k6/encoding";
import { check } from "k6";
import { Counter } from "k6/metrics";

const server = __ENV.SERVER || "127.0.0.1:8001";
const rate = Number(__ENV.RATE || 20);
const duration = __ENV.DURATION || "30s";
const model = __ENV.MODEL || "";
const headers = __ENV.REGARD_TOKEN ? { authorization: `Bearer ${__ENV.REGARD_TOKEN}` } : {};
const text = encoding.b64encode("A quiet film that stays with you.");

const calls = {
  ListModels: ["regard.v1.RegardService/ListModels", () => ({})],
  Embed: ["regard.v1.RegardService/Embed", () => ({ model, text: "A quiet film that stays with you." })],
  EmbedWithRow: [
    "regard.v1.RegardService/Embed",
    () => ({ model, text: "The cat sat on the mat.", attention: { layers: [-1], clsOnly: true } }),
  ],
  ModelInfer: [
    "inference.GRPCInferenceService/ModelInfer",
    () => ({
      modelName: model,
      inputs: [{ name: "text", datatype: "BYTES", shape: [1], contents: { bytesContents: [text] } }],
    }),
  ],
  ServerReady: ["inference.GRPCInferenceService/ServerReady", () => ({})],
};
const shares = ["Embed", "Embed", "Embed", "Embed", "EmbedWithRow", "ModelInfer", "ListModels", "ServerReady"];

const client = new Client();
client.load([__ENV.PROTO || "../../proto"], "regard/v1/regard.proto");
client.load([__ENV.PROTO ? `${__ENV.PROTO}/inference` : "../../proto/inference"], "open_inference.proto");

const ended = new Counter("ended");
export const options = {
  scenarios: {
    open: { executor: "constant-arrival-rate", rate, timeUnit: "1s", duration, preAllocatedVUs: 50, maxVUs: 500 },
  },
  thresholds: {
    checks: ["rate>0.99"],
    grpc_req_duration: [`p(99)<${__ENV.P99_MS || 1000}`],
  },
};

let connected = false;

export default function () {
  if (!connected) {
    client.connect(server, { plaintext: !__ENV.TLS });
    connected = true;
  }
  const name = shares[Math.floor(Math.random() * shares.length)];
  const [method, make] = calls[name];
  const response = client.invoke(method, make(), { metadata: headers, tags: { call: name } });
  ended.add(1, { call: name, status: String(response.status) });
  check(response, { answered: (it) => it.status === StatusOK });
}
