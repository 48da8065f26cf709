"use strict";

/* The gallery: filters choose and order rows; one page of them is in the document at a time. */

const PAGE = 48;

const data = readJson("data");
const pictures = readJson("pictures");
const element = Object.fromEntries(
  ["filters", "legend", "count", "histograms", "gallery", "pages", "rows-heading"]
    .concat(["detail", "detail-heading", "detail-body", "previous", "next", "place", "close"])
    .map((id) => [id, document.getElementById(id)]),
);
const shown = { rows: [], page: 0, open: 0 };

const RESULTS = {
  any: ["any", () => true],
  right: ["right (IoU from 0.5)", (a) => isRight(a)],
  wrong: ["wrong", (a) => a?.iou !== undefined && !isRight(a)],
  gained: ["wrong first, right second", (a, b) => a?.iou !== undefined && !isRight(a) && isRight(b)],
  lost: ["right first, wrong second", (a, b) => isRight(a) && b?.iou !== undefined && !isRight(b)],
};
const ORDERS = {
  "iou-up": ["lowest IoU first", (a) => a?.iou],
  "iou-down": ["highest IoU first", (a) => negative(a?.iou)],
  change: ["largest change of IoU first", (a, b) => negative(Math.abs(b?.iou - a?.iou))],
  "score-up": ["lowest score first", (a) => a?.score],
  "score-down": ["highest score first", (a) => negative(a?.score)],
  input: ["as in the file", () => 0],
};
const STATUSES = { any: "any", ok: "a box", no_box: "no box", error: "error" };
const ONLY_BESIDE = ["gained", "lost", "change"];
const scored = data.rows.some((row) => row.gold); // without a gold box, nothing is right or wrong
if (!scored) for (const name of ["iou-up", "iou-down", "change"]) delete ORDERS[name];

function isRight(answer) {
  return answer?.iou >= CORRECT_IOU;
}

function negative(value) {
  return value === undefined ? undefined : -value;
}

/* The text that a search looks through, made once for each row. */
function searched(row) {
  row.text ??= [row.id, row.expression, row.source, pictures[row.picture]?.name, ...row.answers.map((a) => a?.text)]
    .join("\n")
    .toLowerCase();
  return row.text;
}

function field(label, control) {
  return make("label", { class: "field" }, make("span", {}, label), control);
}

function select(name, options) {
  const choices = options.map(([value, text]) => make("option", { value }, text));
  return make("select", { name, id: `filter-${name}` }, ...choices);
}

function makeFilters() {
  const runs = data.runs.map(({ label }, place) => [place, label]);
  const named = (choices) => Object.entries(choices).map(([value, choice]) => [value, [choice].flat()[0]]);
  element.filters.append(
    field("Search", make("input", { type: "search", name: "text", placeholder: "expression, id, answer" })),
    ...(runs.length > 1
      ? [field("Run", select("first", runs)), field("Beside it", select("second", [["", "nothing"], ...runs]))]
      : []),
    ...(scored ? [field("Result", select("result", named(RESULTS)))] : []),
    field("Answer", select("status", named(STATUSES))),
    ...data.fields.map(({ name, values }, place) =>
      field(name, select(`field-${place}`, [["", "any"], ...values.map((value, number) => [number, value])])),
    ),
    field("Order", select("order", named(ORDERS))),
    make("button", { type: "reset" }, "Reset"),
  );
  if (data.rows.some((row) => row.answers.some((answer) => answer?.kept))) {
    const box = make("input", { type: "checkbox", id: "tokens" });
    element.legend.append(make("label", { class: "switch" }, box, "kept tokens only"));
    box.addEventListener("change", () => showPage(shown.page));
  }
}

function readFilters() {
  const form = new FormData(element.filters);
  const second = form.get("second");
  return {
    text: form.get("text").trim().toLowerCase(),
    first: Number(form.get("first") ?? 0),
    second: second ? Number(second) : null,
    result: RESULTS[form.get("result") ?? "any"][1],
    status: form.get("status"),
    groups: data.fields.map((_, place) => form.get(`field-${place}`)).map((value) => (value ? Number(value) : null)),
    order: ORDERS[form.get("order")][1],
  };
}

function chosenRows(filters) {
  const answers = (row) => [row.answers[filters.first], filters.second === null ? null : row.answers[filters.second]];
  const matches = (row) => {
    const [a, b] = answers(row);
    return (
      (a || b) &&
      (filters.status === "any" || a?.status === filters.status) &&
      filters.groups.every((value, place) => value === null || row.groups[place] === value) &&
      filters.result(a, b) &&
      searched(row).includes(filters.text)
    );
  };
  const keyed = data.rows.filter(matches).map((row) => [filters.order(...answers(row)) ?? NaN, row]);
  keyed.sort(([one], [other]) => Number.isNaN(one) - Number.isNaN(other) || one - other || 0); // stable: then as in the file
  return keyed.map(([, row]) => row);
}

/* The runs on show: the chosen one, and the one beside it. */
function columns(filters) {
  return [filters.first, filters.second].filter((run) => run !== null);
}

function verdict(row, answer) {
  if (!answer) return ["missing", "not in this run"];
  if (answer.status === "error") return ["wrong", "error"];
  if (answer.status === "no_box") return ["wrong", "no box"];
  if (answer.iou === undefined) return ["neutral", scored ? "no gold box" : "box"];
  return isRight(answer) ? ["right", "right"] : ["wrong", "wrong"];
}

/* What a picture shows; the result stands beside it as text. */
function describe(row, answer, picture) {
  const boxes = [answer?.box ? "the predicted box" : null, row.gold ? "the gold box" : null].filter(Boolean);
  return `${picture?.name ?? "no image"}${boxes.length ? ` with ${boxes.join(" and ")}` : ""}`;
}

function resultLine(row, answer, run) {
  const [kind, word] = verdict(row, answer);
  return make(
    "span",
    { class: "result" },
    data.runs.length > 1 ? make("bdi", { class: "run" }, data.runs[run].label) : null,
    kind === "neutral" && !scored ? null : make("span", { class: `verdict ${kind}` }, word),
    answer?.iou === undefined ? null : make("span", {}, `IoU ${decimals(answer.iou)}`),
    answer?.score === undefined ? null : make("span", { class: "muted" }, `score ${decimals(answer.score)}`),
  );
}

function figures(row, runs, withThumbnail = false) {
  const picture = row.picture === null ? null : pictures[row.picture];
  const tokens = document.getElementById("tokens")?.checked ? "tiles" : null;
  return runs.map((run) => {
    const answer = row.answers[run];
    const figure = [drawPicture(row, answer, picture, { description: describe(row, answer, picture), tokens })];
    if (tokens && withThumbnail && answer?.kept?.tiles[2]) {
      const small = drawPicture(row, answer, picture, { description: "Kept tokens of the thumbnail", tokens: "thumbnail" });
      figure.push(make("span", { class: "thumbnail" }, small, make("span", {}, "on the thumbnail, which shows the image again")));
    }
    return make("span", { class: "figure" }, ...figure, resultLine(row, answer, run));
  });
}

function makeCard(row, place, runs) {
  const open = make(
    "button",
    { type: "button", class: "open", "aria-haspopup": "dialog" },
    make("span", { class: "figures" }, ...figures(row, runs)),
    make("span", { class: "expression", dir: "auto" }, row.expression ?? "(no expression)"),
  );
  open.addEventListener("click", () => openDetail(place));
  return make("li", { class: runs.length > 1 ? "card pair" : "card" }, open);
}

function showPage(page) {
  const last = Math.max(0, Math.ceil(shown.rows.length / PAGE) - 1);
  shown.page = Math.min(Math.max(0, page), last);
  const start = shown.page * PAGE;
  const runs = columns(readFilters());
  const cards = shown.rows.slice(start, start + PAGE).map((row, number) => makeCard(row, start + number, runs));
  element.gallery.start = start + 1;
  element.gallery.replaceChildren(...cards);
  const turn = (text, to, disabled) => {
    const button = make("button", { type: "button", disabled }, text);
    button.addEventListener("click", () => {
      showPage(to);
      element["rows-heading"].focus({ preventScroll: true });
      element.count.scrollIntoView({ block: "start" });
    });
    return button;
  };
  element.pages.hidden = last === 0;
  element.pages.replaceChildren(
    turn("Previous page", shown.page - 1, shown.page === 0),
    make("span", {}, `Page ${shown.page + 1} of ${last + 1}`),
    turn("Next page", shown.page + 1, shown.page === last),
  );
}

function showHistograms(filters) {
  const runs = columns(filters);
  const series = (name) =>
    runs.map((run) => ({
      ...data.runs[run],
      values: shown.rows.map((row) => row.answers[run]?.[name]).filter((value) => value !== undefined),
    }));
  const [ious, scores] = [series("iou"), series("score")];
  const parts = [];
  if (ious.some(({ values }) => values.length)) parts.push(drawHistogram("IoU", ious, 1));
  const all = scores.flatMap(({ values }) => values);
  const least = all.some((value) => value < 0) ? -roundAbove(all.map((value) => -value)) : 0;
  if (all.length) parts.push(drawHistogram("Score", scores, roundAbove(all), least));
  element.histograms.replaceChildren(...parts);
}

/* Choices that compare two runs are there only while two runs are on show. */
function offerChoices() {
  const alone = !new FormData(element.filters).get("second");
  for (const option of element.filters.querySelectorAll("option")) {
    if (!ONLY_BESIDE.includes(option.value)) continue;
    option.disabled = option.hidden = alone;
    if (alone && option.selected) option.parentElement.selectedIndex = 0;
  }
}

function update() {
  offerChoices();
  const filters = readFilters();
  shown.rows = chosenRows(filters);
  element.count.textContent =
    shown.rows.length === data.rows.length
      ? counted(data.rows.length, "row")
      : `${shown.rows.length.toLocaleString("en")} of ${counted(data.rows.length, "row")}`;
  showHistograms(filters);
  showPage(0);
}

/* One row, large. It can be turned to any row that the filters have chosen. */
function openDetail(place) {
  if (!(place in shown.rows)) return;
  shown.open = place;
  const row = shown.rows[place];
  const runs = columns(readFilters());
  element.previous.setAttribute("aria-disabled", place === 0);
  element.next.setAttribute("aria-disabled", place === shown.rows.length - 1);
  element.place.textContent = `${(place + 1).toLocaleString("en")} of ${shown.rows.length.toLocaleString("en")}`;
  element["detail-heading"].textContent = row.expression ?? "(no expression)";
  element["detail-body"].replaceChildren(
    make("div", { class: runs.length > 1 ? "figures pair" : "figures" }, ...figures(row, runs, true)),
    details(row, runs),
  );
  if (element.detail.open) return;
  element.detail.showModal();
  element.close.focus();
}

/* Back in the gallery, the row that was open last has the focus. */
function returnToGallery() {
  const page = Math.floor(shown.open / PAGE);
  if (page !== shown.page) showPage(page);
  element.gallery.children[shown.open % PAGE]?.querySelector("button").focus();
}

function details(row, runs) {
  const entries = [
    ["Id", row.id],
    ["Image", pictures[row.picture]?.name],
    ["From", row.source],
    ...data.fields.map(({ name, values }, place) => [name, values[row.groups[place]]]),
    ["Gold box", row.gold?.join(", ")],
  ];
  for (const run of runs) {
    const answer = row.answers[run];
    const name = (text) => (runs.length > 1 ? `${text}, ${data.runs[run].label}` : text);
    entries.push(
      [name("Answer"), answer?.text],
      [name("Box"), answer?.box?.join(", ")],
      [name("Visual tokens kept"), answer?.tokens?.join(" of ")],
      [name("Error"), answer?.error],
    );
  }
  const known = entries.filter(([, value]) => value !== undefined && value !== null);
  return make("dl", {}, ...known.flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, value)]));
}

makeFilters();
let waiting;
element.filters.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(update, 120); // while somebody types
});
element.filters.addEventListener("reset", () => setTimeout(update));
element.filters.addEventListener("submit", (event) => event.preventDefault());
element.previous.addEventListener("click", () => openDetail(shown.open - 1));
element.next.addEventListener("click", () => openDetail(shown.open + 1));
element.close.addEventListener("click", () => element.detail.close());
element.detail.addEventListener("close", returnToGallery);
element.detail.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) openDetail(shown.open + by);
});
update();
