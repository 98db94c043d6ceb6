// Makes elements without markup in text, so that nothing a server sends is ever read as HTML.

/** @import { Child, Option, Properties, SpecialElements } from "../types.d.ts" */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element: `class` and `text` as such, functions as listeners, booleans as properties, the rest as attributes.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} properties
 * @param {Child[]} children
 */
export function make(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/**
 * The same in SVG.
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Properties} properties
 * @param {Child[]} children
 */
export function draw(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/**
 * @template {HTMLElement | SVGElement} Made
 * @param {Made} node
 * @param {Properties} properties
 * @param {Child[]} children
 */
function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "text") node.textContent = String(value);
    else if (typeof value === "function") node.addEventListener(name, /** @type {EventListener} */ (value));
    else if (typeof value === "boolean") Reflect.set(node, name, value);
    else node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/**
 * The element of the page with this id.
 * @template {string} Id
 * @param {Id} id
 * @returns {Id extends keyof SpecialElements ? SpecialElements[Id] : HTMLElement}
 */
export function byId(id) {
  const node = document.getElementById(id);
  if (!node) throw new Error(`the page has no element #${id}`);
  return /** @type {any} */ (node);
}

/**
 * Write a text into an element, if it does not stand there yet: a new one has the page laid out anew.
 * @param {Element} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Switch what needs something shown on or off.
 * @param {boolean} on
 */
export function enable(on) {
  for (const id of ["copy", "compare"]) byId(id).toggleAttribute("disabled", !on);
  byId("download").inert = !on;
}

/**
 * What draws on a canvas.
 * @param {{ getContext(kind: "2d"): unknown }} canvas
 * @returns {OffscreenCanvasRenderingContext2D} What every canvas can do
 */
export function contextOf(canvas) {
  const context = canvas.getContext("2d");
  if (!context) throw new Error("this browser cannot draw on a canvas");
  return /** @type {OffscreenCanvasRenderingContext2D} */ (context);
}

/**
 * A group of radio buttons that look like chips; arrow keys move between them, as in any such group.
 * @param {string} name
 * @param {Option[]} options
 * @param {string | number} value
 * @param {(value: string) => void} onChange
 */
export function radios(name, options, value, onChange) {
  return options.map((option) => {
    const input = make("input", { type: "radio", name, value: option.value, checked: option.value === String(value) });
    input.addEventListener("change", () => onChange(option.value));
    return make(
      "label",
      { class: `chip ${option.class ?? ""}`.trim(), title: option.title },
      input,
      make("span", { text: option.text }),
    );
  });
}

/**
 * A menu to choose one of some options.
 * @param {string} label
 * @param {Option[]} options
 * @param {string | number} value
 * @param {(value: string) => void} onChange
 */
export function choice(label, options, value, onChange) {
  const select = make(
    "select",
    { "aria-label": label },
    ...options.map((option) =>
      make("option", { value: option.value, text: option.text, selected: option.value === String(value) }),
    ),
  );
  select.addEventListener("change", () => onChange(select.value));
  return select;
}
