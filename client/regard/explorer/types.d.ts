// What the page's modules hand to each other. The type check alone reads this (make page-check); nothing serves it.

/** How the heads of a layer are made one. */
export type Reduction = "mean" | "max" | "min";
/** One head by its place in the layer, or all of them as one. */
export type Head = number | Reduction;
/** The position that attends, or all of them on average. */
export type Query = number | "all";
export type Measure = "weights" | "rollout" | "contribution_rollout" | "similarity" | Written;
/** What a step of a model that writes attends to: tokens of the text that it reads, or those before it. */
export type Written = "cross" | "causal";

export interface ModelLayer {
  layer: number;
  kind: string;
  num_heads: number;
  has_contributions: boolean;
  window: Window | null;
  /** Rows are no shares of 1, and may hold negative numbers. */
  mixes_heads: boolean;
  /** One query, the class token; its keys are that and the patches. */
  class_attention: boolean;
}

/** How a layer attends in windows: grid, window and shift in cells (regard.AttentionWindow). */
export interface Window {
  rows: number;
  cols: number;
  height: number;
  width: number;
  shift_rows: number;
  shift_cols: number;
}

/** A model as responses.py describes it. */
export interface Model {
  name: string;
  version: string;
  family: string;
  modality: "text" | "image" | null;
  can_show: boolean;
  takes_pairs: boolean;
  /** Its decoder, where it writes. */
  writer: Writer | null;
  takes_labels: boolean;
  takes_words: boolean;
  layers: ModelLayer[];
  patches: { rows: number; cols: number } | null;
  max_tokens: number;
  device: string;
  precision: string;
  description: string;
  can_classify: boolean;
  num_labels: number;
  /** By which it says why; none where it does not. */
  relevance_methods: string[];
  /** After which layers positions have vectors that can be asked for. */
  compared_layers: number[];
  embedding_dim: number;
}

/** A photograph that comes with the page: what links call it, its file, and whether it is of clothes. */
export interface SamplePhoto {
  photo: string;
  file: string;
  text: string;
  isToy: boolean;
}

export interface Writer {
  num_layers: number;
  num_heads: number;
  max_tokens: number;
  /** What it may begin with, by name. */
  starts: string[];
  default_start: string;
}

export interface Served {
  server: string;
  limits: { photo_bytes: number };
  models: Model[];
}

/** What the page shows, before anything is asked; state.js says what each field means. */
export interface State {
  model: string;
  version: string;
  input: "photo" | "text";
  photo: string | null;
  text: string;
  second: string;
  labels: string;
  truncate: boolean;
  start: string;
  measure: Measure | null;
  layer: number | null;
  head: Head;
  query: Query | null;
  other: Other | null;
  words: boolean;
  charts: boolean;
  curve: Curve | null;
  clip: number | null;
  opacity: number | null;
  smooth: boolean;
  multiples: boolean;
  common: boolean;
  contour: boolean;
  original: boolean;
  why: string;
  against: string;
  method: string;
  words_only: boolean;
  reading: boolean;
  arcs: boolean;
  arc_heads: number[];
  overview: boolean;
}

export type Curve = "linear" | "sqrt" | "log";

/** Where a scale ends, the largest of all numbers, and which percentile the end is. */
export interface End {
  end: number;
  largest: number;
  percentile: number;
}

/** How weights become colours. `chosen`: the percentile that was; `common`: the end that every head has, or null. */
export interface Scale extends End {
  curve: Curve;
  chosen: number | null;
  opacity: number;
  smooth: boolean;
  contour: boolean;
  common: End | null;
}

/**
 * How weights are told: times `count`, if any; `mixed`: they are no shares of 1; `byRow`: times another count in each row
 * of a matrix; `cosine`: they are cosines.
 */
export interface Unit {
  count: number | null;
  mixed: boolean;
  byRow?: boolean;
  cosine?: boolean;
}

/** The second picture: what is null or empty follows the first. */
export interface Other {
  layer: number | null;
  head: Head | null;
  query: Query | null;
  model: string;
  version: string;
  text: string;
  photo: string | null;
}

/** What one picture is of, as if it were the only one: its state, and the model that this means. */
export interface Side extends Part {
  state: State;
  model: Model;
  measure: Measure;
}

/** One picture's layer, by its number, and head. */
export interface Part {
  layer: number;
  head: Head;
}

/** How two answers differ, as comparing.py says it: one of these. */
export interface Change {
  labels?: { name: string; before: number; after: number }[];
  cosine?: number;
}

/** What explaining.py reads. */
export interface WhyQuestion {
  model: string;
  version: string;
  photo?: string | null;
  text?: string;
  second?: string;
  truncate?: boolean;
  label: string;
  against: string;
  method: string;
}

/** What explaining.py says: a number for each of some positions, above 0 for the label. */
export interface Why {
  label: string;
  against: string;
  method: string;
  score: number;
  /** How far the parts are from the score; null where they make up none. */
  relative_error: number | null;
  values: number[];
  positions: number[];
  names: string[];
  headline: string;
  unplaced: string;
  tokens: Token[] | null;
  patches: Grid | null;
  /** Of the label, and of the one that it is told apart from. */
  probabilities: [label: number, against: number | null];
}

/** How it is drawn: on what ground, over which photo, and what is pointed at and picked, by place in the values. */
export interface WhyView {
  why: Why;
  /** Of the numbers without their signs. */
  scale: End;
  state: State;
  ground: OffscreenCanvas | null;
  dark: boolean;
  pointed: number | null;
  picked: Set<number>;
}

/** What a picture of a Why tells, by place in its values. */
export interface WhyEvents {
  point(place: number | null): void;
  pick(place: number): void;
}

/** What requests.py reads, or, without a measure, writing.py. */
export interface Question {
  model: string;
  version: string;
  photo?: string | null;
  text?: string;
  second?: string;
  labels?: string;
  words?: string;
  truncate?: boolean;
  start?: string;
  measure?: Measure | "entropy" | "distance";
  layers?: number[];
  heads?: number[];
  reduce?: Reduction;
}

/** A layer as it travels: its numbers lie at an offset. */
export interface PackedLayer {
  layer: number;
  kind: string;
  measure: string;
  axes: string[];
  heads: number[];
  covered_layers: number[];
  window: Window | null;
  /** Of a photo's layer that attends in windows, or from the class token: its own. */
  grid: Grid | null;
  class_attention: boolean;
  shape: number[];
  dtype: "float16" | "float32";
  offset: number;
}

/** A layer as the page reads it: [H, Q, K]. `means` and `matrices` are made at the first look. */
export interface Layer extends Omit<PackedLayer, "shape"> {
  shape: [heads: number, queries: number, keys: number];
  data: Uint16Array<ArrayBuffer> | Float32Array<ArrayBuffer>;
  half: boolean;
  means?: Map<Head, Float32Array>;
  matrices?: Map<Head, Float32Array>;
}

export interface Token {
  text: string;
  special: boolean;
  /** Where it lies in the text, in code points; both 0 of special tokens. */
  start?: number;
  end?: number;
}

/** A token that was written, special where it ends the text. */
export interface WrittenToken extends Token {
  log_probability: number;
  /** The likeliest of its step, itself among them. */
  alternatives: { text: string; log_probability: number }[];
}

/** How a text that was written ended. */
export interface WrittenEnd {
  model: string;
  version: string;
  truncated: boolean;
  text: string;
  log_probability: number;
  finish_reason: string;
  timings: { first_token_ns: number; total_ns: number };
}

/** What has been written; `end` is null until that is all. */
export interface Writing {
  tokens: WrittenToken[];
  text: string;
  end: WrittenEnd | null;
}

/** A line of what writing.py sends: one of these. */
export interface WrittenPart {
  source?: Token[];
  token?: PackedToken;
  end?: WrittenEnd;
  problem?: { code: string; message: string; retry_seconds: number | null; server: string };
}

export interface PackedToken extends Omit<WrittenToken, "special"> {
  attention: PackedRow[];
}

/** What a token attends to in one layer, [H, K], as float16 in base64. */
export interface PackedRow {
  layer: number;
  kind: Written;
  heads: number;
  keys: number;
  weights: string;
}

/** How positions lie on a photo, in its pixels once it is upright. */
export interface Grid {
  prefix_tokens: number;
  rows: number;
  cols: number;
  image_width: number;
  image_height: number;
  box: Box;
  /** What the network saw, where the box of a layer's own grid may reach over it. */
  seen?: Box;
}

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Label {
  name: string;
  probability: number;
}

export interface Timings {
  decode_ns: number;
  queue_ns: number;
  compute_ns: number;
  encode_ns: number;
}

interface AnyReply {
  model: string;
  version: string;
  labels: Label[];
  /** Whose maps a layer's rows are, where words were asked for. */
  words: string[];
  truncated: boolean;
  timings: Timings | null;
  layers: Layer[];
}
/** Where a text is written, its tokens are the queries, and `tokens` the keys. */
export type TextReply = AnyReply & { tokens: Token[]; patches: null; writing?: Writing };
export type PhotoReply = AnyReply & { tokens: null; patches: Grid; writing?: undefined };
export type Reply = TextReply | PhotoReply;

/** An answer, and which of its heads is shown. */
export interface Picture<R extends Reply = Reply> {
  reply: R;
  layer: Layer;
  head: Head;
}

/** A picture with what it is of, and the photo below it. */
export interface SidePicture<R extends Reply = Reply> extends Picture<R> {
  side: Side;
  ground: OffscreenCanvas | null;
  /** The photo in colour, in place of ground and map, where it is to be seen as it is. */
  bare: OffscreenCanvas | null;
}

export interface Shown {
  model: Model;
  main: SidePicture;
  other: SidePicture | null;
}

/** Who attends in a picture, and which position is pointed at, as its own positions. */
export interface Places {
  query: Query;
  key: number | null;
}

/** What is shown, and who attends in the first picture; `beside`: in the second. */
export interface Seen extends Shown, Places {
  state: State;
  measure: Measure;
  beside: Places | null;
}

/** One picture, ready to be drawn: `row` is what the query attends to, [K]. */
export interface PictureView<R extends Reply = Reply> extends SidePicture<R>, Places {
  scale: Scale;
  /** The grid of the first picture, where this is of the same photo. */
  home: Grid | null;
  /** Of the row, or of the rows of both pictures. */
  rowEnd: End;
  unit: Unit;
  row: Float32Array;
  pinned: boolean;
  title: string;
  ink: string;
  /** The text that tokens lie in, where it is seen as such; else null. */
  text: string | null;
  /** Whether arcs are seen in place of the matrix. */
  arcs: boolean;
  /** The heads whose arcs are drawn, each in its colour; none for those of `head`. */
  heads: number[];
  /** Whether it is drawn on a dark ground. */
  dark: boolean;
}

export type TextView = PictureView<TextReply>;
export type PhotoView = PictureView<PhotoReply> & { ground: OffscreenCanvas };

/**
 * What a picture tells the page, as its own positions. `point` and `cell` with null: the pointer left. `key`: true where
 * it was used. `first`: the position of the first picture there, where this is of the same photo on another grid.
 */
export interface PictureEvents {
  point(position: number | null, first?: number | null): void;
  /** A finger is dragged over a position, which attends whatever is pinned. */
  scrub(position: number | null, first?: number | null): void;
  /** Both null: the pointer left. The query alone null: whoever looked before goes on. */
  cell(query: number | null, key: number | null): void;
  pin(position: number, first?: number | null): void;
  key(name: string): boolean;
  release(): void;
  /** The arcs of a head are wanted, or no longer. */
  arcHead(head: number): void;
}

/** Of the first picture, or where it is so told of the second. */
export interface ViewEvents {
  point(position: number | null, first?: number | null, ofSecond?: boolean): void;
  scrub(position: number | null, first?: number | null, ofSecond?: boolean): void;
  cell(query: number | null, key: number | null, ofSecond?: boolean): void;
  pin(position: number, first?: number | null, ofSecond?: boolean): void;
  key(name: string): boolean;
  release(): void;
  arcHead(head: number): void;
  query(query: Query): void;
  head(head: number): void;
  other(fields: Partial<Other>): void;
}

/** A colour from 0 to 255 each. */
export type Colour = [red: number, green: number, blue: number];

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** What a choice offers. */
export interface Option {
  value: string;
  text: string;
  title?: string;
  class?: string;
}

/** Of an element that dom.js makes: listeners by their event's name, and attributes. */
export type Properties = {
  [Name in keyof GlobalEventHandlersEventMap]?: (event: GlobalEventHandlersEventMap[Name]) => unknown;
} & { [name: string]: unknown };
export type Child = Node | string | null;

/** The elements of index.html that have an id, where they are more than an HTMLElement. */
export interface SpecialElements {
  arcs: HTMLInputElement;
  beside: HTMLDetailsElement;
  "beside-file": HTMLInputElement;
  "beside-model": HTMLSelectElement;
  "beside-none": HTMLButtonElement;
  "beside-text": HTMLTextAreaElement;
  "beside-thumb": HTMLCanvasElement;
  candidates: HTMLInputElement;
  charts: HTMLDetailsElement;
  clip: HTMLSelectElement;
  common: HTMLInputElement;
  contour: HTMLInputElement;
  curve: HTMLSelectElement;
  download: HTMLDetailsElement;
  file: HTMLInputElement;
  "input-photo": HTMLInputElement;
  "input-text": HTMLInputElement;
  link: HTMLInputElement;
  model: HTMLSelectElement;
  multiples: HTMLInputElement;
  opacity: HTMLInputElement;
  overview: HTMLDetailsElement;
  reading: HTMLInputElement;
  words_only: HTMLInputElement;
  original: HTMLInputElement;
  second: HTMLTextAreaElement;
  smooth: HTMLInputElement;
  start: HTMLSelectElement;
  text: HTMLTextAreaElement;
  thumb: HTMLCanvasElement;
  truncate: HTMLInputElement;
  "why-method": HTMLSelectElement;
  words: HTMLDetailsElement;
}
