// Makes elements without markup in text, so that nothing a server sends is ever read as HTML; every view uses it.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `class` and `text` as such, functions as listeners, booleans as properties, the rest as attributes. */
export function make(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** The same in SVG. */
export function draw(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(node, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (name === "class") node.setAttribute("class", value);
    else if (name === "text") node.textContent = value;
    else if (typeof value === "function") node.addEventListener(name, value);
    else if (typeof value === "boolean") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** The element of the page with this id. */
export const byId = (id) => document.getElementById(id);

/** A group of radio buttons that look like chips; arrow keys move between them, as in any such group. */
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

/** A menu to choose one of some options. */
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
