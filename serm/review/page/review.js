// The review page: shows one pair at a time, takes a grade by key or click, and saves it in the background.
// Every text from the server is data: it enters the page as textContent, never as markup.

const KEPT_PAGES = 12; // pages of pairs held in memory
const SHORT_TEXT = 1400; // characters of a document shown before "Show the whole text"
const token = document.querySelector("meta[name=serm-token]").content;
const $ = (id) => document.getElementById(id);

const pages = new Map(); // page number -> promise of its pairs
const decided = new Map(); // place -> grade decided or undone here (null: undone)
const skipped = new Set();
const history = []; // { place, query, doc_id, previous }
let desk = null; // what /api/state said
let current = null; // the pair shown
let progress = { total: 0, done: 0, others: 0, left: 0 };
let pending = 0;
let queueOfWrites = Promise.resolve();
let busy = false; // a move is under way

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "content-type": "application/json", "x-serm-token": token },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is serm review still running?");
  }
  const answer = await response.json().catch(() => ({ error: `The server failed (${response.status}); see its terminal.` }));
  if (!response.ok) throw new Error(answer.error ?? `HTTP ${response.status}`);
  return answer;
}

// --- pages of the queue ---

function pageOf(number) {
  if (!pages.has(number)) {
    const found = ask(`/api/pairs?from=${number * desk.page}&count=${desk.page}`).then((answer) => answer.pairs);
    found.catch(() => pages.delete(number));
    pages.set(number, found);
    if (pages.size > KEPT_PAGES) pages.delete(pages.keys().next().value);
  }
  return pages.get(number);
}

async function pairAt(place) {
  if (place < 0 || place >= progress.total) return null;
  const number = Math.floor(place / desk.page);
  const pair = (await pageOf(number))[place % desk.page] ?? null;
  if (place % desk.page > desk.page / 2 && (number + 1) * desk.page < progress.total) pageOf(number + 1).catch(() => {});
  return pair;
}

const gradeOf = (pair) => (decided.has(pair.place) ? decided.get(pair.place) : pair.grade);
const isOpen = (pair) => gradeOf(pair) === null && pair.judged_by.length === 0 && !skipped.has(pair.place);

// The first pair behind `after` that is still to be judged, from the front again if need be; null if there is none.
async function nextOpen(after) {
  const seen = new Set();
  for (let place = after; ; ) {
    const end = Math.min(progress.total, (Math.floor((place + 1) / desk.page) + 1) * desk.page);
    for (let near = place + 1; near < end; near += 1) {
      const pair = await pairAt(near);
      if (pair && isOpen(pair)) return pair;
    }
    await queueOfWrites; // the server shall know what was decided before it is asked
    place = (await ask(`/api/next?after=${end - 1}`)).place;
    if (place === null || seen.has(place)) return null;
    seen.add(place);
    const pair = await pairAt(place);
    if (pair && isOpen(pair)) return pair;
  }
}

// --- what a person does ---

async function move(find) {
  if (busy) return;
  busy = true;
  try {
    const pair = await find();
    if (pair !== undefined) show(pair);
    clearProblem();
  } catch (error) {
    say(error.message);
  } finally {
    busy = false;
  }
}

function write(path, body, undoLocally) {
  pending += 1;
  showSaved();
  queueOfWrites = queueOfWrites.then(async () => {
    try {
      const answer = await ask(path, body);
      progress = answer.progress;
    } catch (error) {
      undoLocally();
      say(`Not saved: ${error.message}`);
    }
    pending -= 1;
    showSaved();
    showProgress();
  });
}

function grade(value) {
  if (!current || busy) return;
  const pair = current;
  const previous = gradeOf(pair);
  const step = { place: pair.place, query: pair.query, doc_id: pair.doc_id, previous };
  clearProblem();
  history.push(step);
  decided.set(pair.place, value);
  skipped.delete(pair.place);
  write("/api/decide", { query: pair.query, doc_id: pair.doc_id, grade: value }, () => {
    decided.set(pair.place, previous);
    const index = history.indexOf(step);
    if (index >= 0) history.splice(index, 1);
    show(pair);
  });
  showButtons();
  goOn(pair.place);
}

// Like move, but an alert about a lost decision stays on the screen.
async function goOn(place) {
  busy = true;
  try {
    show(await nextOpen(place));
  } catch (error) {
    say(error.message);
  } finally {
    busy = false;
  }
}

function skip() {
  if (!current || busy) return;
  if (gradeOf(current) === null) skipped.add(current.place);
  goOn(current.place);
}

function undo() {
  if (!history.length || busy) return;
  const step = history.pop();
  const value = decided.get(step.place);
  decided.set(step.place, step.previous);
  const pair = { query: step.query, doc_id: step.doc_id };
  const restore = () => { decided.set(step.place, value); history.push(step); };
  if (step.previous === null) write("/api/undo", pair, restore);
  else write("/api/decide", { ...pair, grade: step.previous }, restore);
  move(() => pairAt(step.place));
}

function step(by) {
  const from = current ? current.place : by > 0 ? -1 : progress.total;
  const place = from + by;
  if (place < 0 || place >= progress.total) return;
  move(() => pairAt(place));
}

// --- showing ---

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

// A pattern of the query's words; scripts without spaces are found inside longer runs.
function wordsPattern(query) {
  const words = [...new Set(query.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [])].sort((a, b) => b.length - a.length);
  const dense = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}]/u;
  const parts = words.map((word) => (dense.test(word) ? word : `(?<![\\p{L}\\p{N}])${word}(?![\\p{L}\\p{N}])`));
  return parts.length ? new RegExp(parts.join("|"), "giu") : null;
}

function fillMarked(target, text, pattern) {
  target.replaceChildren();
  let end = 0;
  for (const match of pattern ? text.matchAll(pattern) : []) {
    target.append(text.slice(end, match.index), element("mark", "", match[0]));
    end = match.index + match[0].length;
  }
  target.append(text.slice(end));
}

const gradeName = (value) => desk.grades.find((known) => known.grade === value)?.name ?? "";
const worded = (value) => [String(value), gradeName(value)].filter(Boolean).join(" · ");

function showVotes(votes) {
  const target = $("votes");
  target.replaceChildren();
  if (!votes.length) target.append(element("p", "note", "No votes are stored."));
  for (const vote of votes) {
    const block = element("div", "vote");
    const head = element("div", "vote-head");
    const none = vote.label === null || vote.label === undefined;
    head.append(element("b", "", vote.annotator), element("span", none ? "label none" : "label", none ? "no stable label" : worded(vote.label)));
    const list = element("ul", "paths");
    for (const path of vote.paths) {
      const line = element("li");
      const silent = path.label === null;
      line.append(element("span", "said", silent ? "–" : path.label));
      line.append(element("span", silent || !path.reasoning ? "reasoning silent" : "reasoning", silent ? path.outcome + (path.reasoning ? `: ${path.reasoning}` : "") : path.reasoning || "no reason stored"));
      list.append(line);
    }
    block.append(head, list);
    target.append(block);
  }
}

function showWhy(pair) {
  const facts = [
    ["Mined because", pair.mined_because],
    ["Mined by", (pair.agents ?? []).join(", ")],
    ["Not kept because", pair.reason],
    ["Round", pair.round],
  ];
  $("why").replaceChildren(...facts.filter(([, fact]) => fact !== null && fact !== "").map(([name, fact]) => {
    const part = element("div");
    part.append(element("dt", "", name), element("dd", "", fact));
    return part;
  }));
}

function showText(pair, whole) {
  const pattern = wordsPattern(pair.query);
  const title = pair.title ?? "";
  fillMarked($("title"), title, pattern);
  $("title").hidden = !title;
  const absent = pair.text === null;
  let text = absent ? "The document is not in the documents table." : pair.text;
  if (title && text.startsWith(title)) text = text.slice(title.length).replace(/^[\s.:–|-]+/u, "");
  const cut = !whole && text.length > SHORT_TEXT;
  fillMarked($("text"), cut ? `${text.slice(0, SHORT_TEXT).replace(/\s+\S*$/u, "")} …` : text, absent ? null : pattern);
  $("text").classList.toggle("absent", absent);
  $("more").hidden = !cut;
}

function show(pair) {
  current = pair;
  $("pair").hidden = !pair;
  $("finished").hidden = Boolean(pair);
  if (!pair) showFinished();
  else {
    for (const part of ["query", "title", "text"]) $(part).lang = pair.locale ?? "";
    $("query").textContent = pair.query;
    $("place").textContent = `${(pair.place + 1).toLocaleString("en")} of ${progress.total.toLocaleString("en")}`;
    $("doc-id").textContent = pair.doc_id;
    showText(pair, false);
    showVotes(pair.votes);
    showWhy(pair);
    const chips = [];
    if (pair.locale) chips.push(element("span", "chip", pair.locale));
    if (gradeOf(pair) !== null) chips.push(element("span", "chip own", `You gave ${worded(gradeOf(pair))}`));
    if (skipped.has(pair.place)) chips.push(element("span", "chip", "Skipped"));
    if (pair.judged_by.length) chips.push(element("span", "chip", `Judged meanwhile by ${pair.judged_by.join(", ")}`));
    $("marks").replaceChildren(...chips);
    window.scrollTo(0, 0);
  }
  showButtons();
  showProgress();
}

function showFinished() {
  const waiting = skipped.size;
  $("finished-title").textContent = waiting ? "Only skipped pairs are left" : progress.total ? "All pairs are judged" : "No pair waits for review";
  $("finished-text").textContent = waiting
    ? `${waiting.toLocaleString("en")} skipped ${waiting === 1 ? "pair stays" : "pairs stay"} in the queue for another time or another person.`
    : progress.total ? "Your decisions are in the judgments table. The next serm update learns from them." : "Pairs come here when the annotators do not agree: serm annotate.";
  $("again").hidden = !waiting;
}

function showButtons() {
  for (const button of $("grades").children) {
    button.disabled = !current;
    button.setAttribute("aria-pressed", String(Boolean(current) && gradeOf(current) === Number(button.dataset.grade)));
  }
  $("skip").disabled = !current;
  $("undo").disabled = !history.length;
  $("back").disabled = current ? current.place === 0 : !progress.total;
  $("forward").disabled = !current || current.place + 1 >= progress.total;
}

function showProgress() {
  const closed = progress.done + progress.others;
  const counts = [[progress.done, "done"], [progress.left, "left"]];
  if (progress.others) counts.splice(1, 0, [progress.others, "by others"]);
  $("counts").replaceChildren(...counts.flatMap(([count, word], index) => [index ? " · " : "", element("b", "", count.toLocaleString("en")), ` ${word}`]));
  $("fill").style.width = progress.total ? `${(100 * closed) / progress.total}%` : "0";
  const track = document.querySelector(".track");
  track.setAttribute("aria-valuemax", progress.total);
  track.setAttribute("aria-valuenow", closed);
}

function showSaved() {
  $("saved").textContent = pending ? "Saving…" : history.length ? "Saved" : "";
  $("saved").classList.toggle("busy", pending > 0);
}

function say(text) {
  $("problem").textContent = text;
  $("problem").hidden = false;
}

function clearProblem() {
  $("problem").hidden = true;
}

// --- keys ---

// A grade of one digit is its own key; on other scales the keys count from 1.
function keysOf(grades) {
  const own = grades.every(({ grade: value }) => value >= 0 && value <= 9);
  return new Map(grades.slice(0, 10).map(({ grade: value }, index) => [own ? String(value) : String((index + 1) % 10), value]));
}

function prepare() {
  const keys = keysOf(desk.grades);
  const keyOf = new Map([...keys].map(([key, value]) => [value, key]));
  for (const { grade: value, name } of desk.grades) {
    const button = element("button", "grade");
    button.type = "button";
    button.dataset.grade = value;
    const key = keyOf.get(value);
    if (key !== undefined) button.append(element("kbd", "", key));
    button.append(element("span", "", key === String(value) && name ? name : worded(value)));
    button.addEventListener("click", () => { grade(value); button.blur(); });
    $("grades").append(button);
  }
  const first = [...keys.keys()];
  const lines = [[[first[0], "…", first.at(-1)], "give this grade and go on"], [["S"], "skip"], [["U"], "undo the last decision"], [["←", "→"], "previous, next pair"], [["?"], "these keys"]];
  for (const [names, meaning] of lines) {
    const term = element("dt");
    term.append(...names.map((name) => (name === "…" ? element("span", "", name) : element("kbd", "", name))));
    $("key-list").append(term, element("dd", "", meaning));
  }
  const actions = { s: skip, u: undo, ArrowLeft: () => step(-1), ArrowRight: () => step(1), "?": () => $("keys").showModal() };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("keys").open) return;
    const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const arrow = name.startsWith("Arrow");
    if (event.repeat && !arrow) return;
    if (keys.has(name)) grade(keys.get(name));
    else if (actions[name]) actions[name]();
    else return;
    event.preventDefault();
  });
  $("skip").addEventListener("click", skip);
  $("undo").addEventListener("click", undo);
  $("back").addEventListener("click", () => step(-1));
  $("forward").addEventListener("click", () => step(1));
  $("help").addEventListener("click", actions["?"]);
  $("more").addEventListener("click", () => showText(current, true));
  $("again").addEventListener("click", () => { skipped.clear(); move(() => nextOpen(-1)); });
  window.addEventListener("beforeunload", (event) => { if (pending) event.preventDefault(); });
}

try {
  desk = await ask("/api/state");
  progress = desk.progress;
  $("reviewer").textContent = desk.reviewer;
  $("reviewer").title = `Decisions are saved under this name, in split ${desk.split}`;
  prepare();
  await move(() => nextOpen(-1));
} catch (error) {
  say(error.message);
}
