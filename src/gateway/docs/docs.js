// Shows the description of the interface, and tries calls. Everything is put into the page as text, never as HTML.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
let description;

/** An element with attributes and children; a child that is no element becomes text. */
function make(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Text with `code` in it, as elements. */
function prose(text) {
  return (text ?? "").split("`").map((part, index) => index % 2 ? make("code", {}, part) : part);
}

/** Bodies that can be sent as they stand, by call and, where one call takes several, by type. */
const BODIES = {
  createDocument: { text: "hello", wind: 4 },
  writeDocument: { text: "hello", wind: 4, crew: ["Ada"] },
  patchDocument: {
    "application/json": { $inc: { visits: 1 }, $set: { "sea.state": 3 } },
    "application/merge-patch+json": { wind: 7, old: null },
    "application/json-patch+json": [{ op: "add", path: "/wind", value: 7 }],
  },
  writeDocuments: '{"_id": "a", "n": 1}\n{"_id": "b", "n": 2}\n',
  restoreVersion: { at: "2030-01-01T00:00:00Z" },
  query: { filter: { wind: { $gte: 3 } }, sort: "-wind", projection: { wind: 1 }, limit: 10 },
  explain: { filter: { wind: { $gte: 3 } } },
  count: { filter: { wind: { $gte: 3 } } },
  distinct: { field: "crew" },
  aggregate: { pipeline: [{ $group: { _id: "$wind", n: { $sum: 1 } } }, { $sort: "-n" }] },
  putIndex: { fields: "wind" },
  invite: { role: "writer", expires_in_s: 86400, uses: 1 },
};

/** The body to begin with for a call and a type. */
function exampleBody(id, type) {
  const found = BODIES[id]?.[type] ?? BODIES[id] ?? "";
  return typeof found === "string" ? found : JSON.stringify(found, null, 2);
}

/** What a reference points to. */
function resolve(thing) {
  if (!thing || !thing.$ref) return thing;
  const parts = thing.$ref.replace(/^#\//, "").split("/");
  return parts.reduce((at, part) => at?.[part.replace(/~1/g, "/").replace(/~0/g, "~")], description);
}

/** A schema as a person writes JSON: names with what they hold. */
function shape(schema, depth = 0) {
  schema = resolve(schema) ?? {};
  if (depth > 6) return "...";
  if (schema.allOf) return Object.assign({}, ...schema.allOf.map((part) => shape(part, depth + 1)));
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) {
    const real = choices.filter((choice) => choice.type !== "null");
    return real.length === 1 ? shape(real[0], depth + 1) : real.map((choice) => shape(choice, depth + 1)).join(" or ");
  }
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.properties) {
    const fields = Object.entries(schema.properties);
    return Object.fromEntries(fields.map(([name, field]) => [name, shape(field, depth + 1)]));
  }
  if (schema.items) return [shape(schema.items, depth + 1)];
  if (typeof schema.additionalProperties === "object") return { "...": shape(schema.additionalProperties, depth + 1) };
  const type = [].concat(schema.type ?? "anything").join(" or ");
  return schema.description && depth > 0 ? `${type}: ${schema.description.replaceAll("`", "")}` : type;
}

function shown(content) {
  return Object.entries(content ?? {}).map(([type, { schema }]) =>
    make("div", {}, make("code", {}, type), make("pre", {}, JSON.stringify(shape(schema), null, 2))));
}

function parameterRows(parameters, inputs) {
  return parameters.map((parameter) => {
    const input = make("input", { "aria-label": parameter.name, autocomplete: "off" });
    const preset = parameter.example ?? parameter.schema?.example;
    if (preset !== undefined) input.value = preset;
    inputs.push([parameter, input]);
    const kind = `${parameter.in}${parameter.required ? ", required" : ""}`;
    return make("tr", {},
      make("td", {}, make("code", {}, parameter.name)), make("td", {}, kind),
      make("td", {}, ...prose(parameter.description)), make("td", {}, input));
  });
}

function answerRows(responses) {
  return Object.entries(responses).map(([status, response]) => {
    response = resolve(response);
    const headers = Object.keys(response.headers ?? {});
    const isProblem = "application/problem+json" in (response.content ?? {});
    const cell = make("td", {}, ...prose(response.description));
    if (headers.length) cell.append(make("div", {}, "Headers: ", make("code", {}, headers.join(", "))));
    if (isProblem) cell.append(" (a problem document)");
    else cell.append(...shown(response.content));
    return make("tr", {}, make("td", {}, make("code", {}, status)), cell);
  });
}

/** The URL and the headers of a call with what was typed. */
function assemble(path, inputs) {
  const headers = {};
  const query = new URLSearchParams();
  for (const [parameter, input] of inputs) {
    const value = input.value;
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, () => encodeURIComponent(value));
    else if (value === "") continue;
    else if (parameter.in === "query") query.append(parameter.name, value);
    else if (parameter.in === "header") headers[parameter.name] = value;
  }
  const token = document.getElementById("token").value;
  if (token) headers.authorization = `Bearer ${token}`;
  const asked = query.toString();
  return { url: asked ? `${path}?${asked}` : path, headers };
}

const SHOWN_CHARACTERS = 100000;

/** Makes a call and shows what came back; a stream is shown as it comes until it is stopped. */
async function attempt(method, path, inputs, body, output, stop) {
  const { url, headers } = assemble(path, inputs);
  const request = { method: method.toUpperCase(), headers, signal: stop.signal };
  if (body && body.text.value !== "") {
    request.body = body.text.value;
    headers["content-type"] = body.type.value;
  }
  output.className = "";
  output.textContent = `${request.method} ${url}\n`;
  try {
    const response = await fetch(url, request);
    const kept = ["etag", "location", "retry-after", "content-type", "x-request-id", "www-authenticate"];
    const lines = kept.filter((name) => response.headers.has(name)).map((name) => `${name}: ${response.headers.get(name)}`);
    output.textContent += `\n${response.status} ${response.statusText}\n${lines.join("\n")}\n\n`;
    if (!response.ok && response.status !== 304) output.className = "failed";
    await show(response, output);
  } catch (error) {
    output.className = "failed";
    output.textContent += stop.signal.aborted ? "\nstopped" : `\nthe peer cannot be reached: ${error.message}`;
  }
}

async function show(response, output) {
  const type = response.headers.get("content-type") ?? "";
  if (/^application\/([a-z.-]+\+)?json\b/.test(type)) {
    const text = await response.text();
    // As it was sent: parsing it would round large numbers.
    output.textContent += text.slice(0, SHOWN_CHARACTERS);
    return;
  }
  const reader = response.body?.getReader();
  const decoder = new TextDecoder();
  for (let part = await reader?.read(); part && !part.done; part = await reader.read()) {
    output.textContent = (output.textContent + decoder.decode(part.value, { stream: true })).slice(-SHOWN_CHARACTERS);
  }
}

function bodyEditor(operation) {
  const request = resolve(operation.requestBody);
  if (!request) return undefined;
  const type = make("select", { "aria-label": "Content-Type" });
  for (const name of Object.keys(request.content)) type.append(make("option", { value: name }, name));
  const text = make("textarea", { "aria-label": "Body", spellcheck: "false" });
  const begin = () => { text.value = exampleBody(operation.operationId, type.value); };
  type.addEventListener("change", begin);
  begin();
  return { about: request.description, content: request.content, type, text };
}

function call(method, path, operation) {
  const inputs = [];
  const body = bodyEditor(operation);
  const output = make("pre", { "aria-live": "polite" });
  const send = make("button", { type: "button" }, "Send");
  const halt = make("button", { type: "button", disabled: "" }, "Stop");
  let stop;
  send.addEventListener("click", async () => {
    stop?.abort();
    const own = (stop = new AbortController());
    halt.disabled = false;
    await attempt(method, path, inputs, body, output, own);
    if (own === stop) halt.disabled = true;
  });
  halt.addEventListener("click", () => stop?.abort());
  const parameters = (operation.parameters ?? []).map(resolve);
  const content = make("div", {}, make("p", {}, ...prose(operation.description)));
  if (parameters.length) content.append(make("h3", {}, "Parameters"), make("table", {}, ...parameterRows(parameters, inputs)));
  if (body) content.append(make("h3", {}, "Body"), ...prose(body.about), ...shown(body.content), body.type, body.text);
  content.append(make("p", {}, send, " ", halt), output);
  content.append(make("h3", {}, "Answers"), make("table", {}, ...answerRows(operation.responses)));
  return make("details", { id: operation.operationId ?? "" },
    make("summary", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path),
      make("span", { class: "summary" }, ...prose(operation.summary))), content);
}

function render() {
  const { info, paths, tags } = description;
  document.getElementById("about").textContent = `${info.title} ${info.version}. ${info.description ?? ""}`;
  const calls = Object.entries(paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => [method, path, item[method]]));
  for (const tag of tags ?? []) {
    const own = calls.filter(([, , operation]) => operation.tags?.includes(tag.name));
    if (!own.length) continue;
    document.getElementById("calls").append(
      make("section", { id: `tag-${tag.name}` }, make("h2", {}, tag.name), make("p", {}, ...prose(tag.description)), ...own.map((one) => call(...one))));
    const links = own.map(([method, path, { operationId }]) =>
      make("a", { href: `#${operationId}` }, `${method.toUpperCase()} ${path.replace("/api/v1", "").replace("{collection}", "{c}")}`));
    document.getElementById("contents").append(
      make("section", {}, make("h3", {}, make("a", { href: `#tag-${tag.name}` }, tag.name)), ...links));
  }
  window.addEventListener("hashchange", unfold);
  unfold();
}

/** Opens the call that the address names. */
function unfold() {
  const named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (named?.tagName === "DETAILS") named.open = true;
  named?.scrollIntoView();
}

fetch("/api/v1/openapi.json")
  .then((response) => response.json())
  .then((json) => { description = json; render(); })
  .catch((error) => { document.getElementById("about").textContent = `The description could not be loaded: ${error.message}`; });
