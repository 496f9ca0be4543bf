// The page of `deepregions serve`: sends files, follows their jobs, and shows what came of them.

const REMEMBERED = 300; // jobs
const ASKED = 20; // jobs of one request: their results come along
const PATIENCE = { one: 10_000, several: 2_000 }; // ms of a stream of events, then all are asked for

const entries = []; // as they are shown, the newest batch first
const queue = []; // those that wait to be sent
let [sending, following, reached] = [false, false, true];
let stop = new AbortController(); // of the stream of events

const byId = (id) => document.getElementById(id);
const part = (entry, selector) => entry.item.querySelector(selector);
const count = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
const nameOf = (entry) => entry.job?.name ?? entry.file.name;
const ended = (entry) => Boolean(entry.problem ?? entry.job?.result ?? entry.job?.error);
const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
const sentences = (...texts) => texts.filter(Boolean).map(sentence).join(" ");

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // screen readers hear changes
}

// What is remembered; where a browser forbids it, for as long as the page is open

const forbidden = {};

function recall(storage, name) {
  try {
    return window[storage].getItem(name);
  } catch {
    return forbidden[name] ?? null;
  }
}

function remember(storage, name, text) {
  try {
    window[storage].setItem(name, text);
  } catch {
    forbidden[name] = text;
  }
}

const key = () => recall("sessionStorage", "deepregions.key");
const rememberedJobs = () => (recall("localStorage", "deepregions.jobs") ?? "").split(" ").filter(Boolean);
const rememberJobs = (ids) => remember("localStorage", "deepregions.jobs", [...new Set(ids)].slice(0, REMEMBERED).join(" "));

// Asking the service

let asking = null; // for a key

/** Waits for another key than one that was refused. */
function otherKey(refused) {
  if (key() !== refused) return Promise.resolve();
  asking ??= new Promise((resolve) => {
    const [form, field] = [byId("key"), byId("key-value")];
    if (refused) setText(byId("key-why"), "The service doesn't know this key. Is it complete? It may have been revoked.");
    form.hidden = false;
    field.focus();
    form.onsubmit = (event) => {
      event.preventDefault();
      remember("sessionStorage", "deepregions.key", field.value.trim());
      form.reset();
      form.hidden = true;
      asking = null;
      byId("files").focus();
      resolve();
    };
  });
  return asking;
}

async function ask(path, options = {}) {
  for (;;) {
    const used = key();
    const headers = used ? { Authorization: `Bearer ${used}` } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.status === 401) {
      await otherKey(used);
    } else if (answer.ok) {
      return answer;
    } else {
      const told = await answer.json().catch(() => ({}));
      throw Object.assign(new Error(sentences(told.title, told.detail, told.hint)), { status: answer.status });
    }
  }
}

const isThere = () => fetch("/healthz").then((answer) => answer.ok, () => false);

/** Waits for so many seconds, or until the browser is online again. */
function pause(seconds) {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(1000 * seconds);
    signal.addEventListener("abort", resolve);
    addEventListener("online", resolve, { once: true, signal });
  });
}

// Sending files

async function take(files) {
  const batch = [...files].map((file) => ({ file, sent: 0, opened: files.length === 1 }));
  for (const entry of [...batch].reverse()) add(entry);
  queue.push(...batch);
  if (sending) return;
  sending = true;
  while (queue.length) await send(queue.shift());
  sending = false;
}

async function send(entry) {
  for (let failures = 0; entries.includes(entry); ) {
    const used = key();
    const { status, told, wait } = await post(entry, used);
    if (!entries.includes(entry)) return; // it was removed
    entry.sent = 0;
    if (status === 202) {
      reach(true);
      update(entry, told.jobs[0]);
      rememberJobs([...entries.flatMap((each) => each.job?.id ?? []), ...rememberedJobs()]);
      follow();
      return;
    }
    if (status === 401) {
      await otherKey(used);
    } else if (status === 429 || status === 503) {
      await later(entry, sentences(told?.detail, "The file will be sent again by itself"), wait || 5);
    } else if (status === 0 && !(await isThere())) {
      reach(false);
      await later(entry, "The service cannot be reached. The file will be sent when it can.", 3);
    } else if (status !== 0 || ++failures === 3) {
      const broken = { title: "Sending failed", detail: "the connection breaks while it is sent", hint: "It may be too large, be a folder, or have changed since you chose it" };
      entry.problem = told?.detail ? told : broken;
      show(entry);
      tell(entry);
      return;
    }
  }
}

async function later(entry, why, seconds) {
  entry.note = why;
  show(entry);
  await pause(seconds);
  entry.note = "";
}

function post(entry, used) {
  return new Promise((resolve) => {
    const form = new FormData();
    form.append("file", entry.file, entry.file.name);
    const request = new XMLHttpRequest(); // fetch doesn't say how much was sent
    entry.request = request;
    request.open("POST", "/v1/jobs");
    if (used) request.setRequestHeader("Authorization", `Bearer ${used}`);
    request.responseType = "json";
    request.upload.onprogress = ({ loaded, total }) => {
      entry.sent = total ? loaded / total : 0;
      show(entry);
    };
    request.onloadend = () => {
      const wait = Number(request.getResponseHeader("Retry-After"));
      resolve({ status: request.status, told: request.response, wait });
    };
    request.send(form);
  });
}

// Following jobs

async function follow() {
  stop.abort(); // a loop that is at it asks again
  if (following) return;
  following = true;
  for (let open; (open = entries.filter((entry) => entry.job && !ended(entry))).length; ) {
    stop = new AbortController();
    try {
      await refresh(open);
      reach(true);
      const left = open.filter((entry) => entries.includes(entry) && !ended(entry));
      const patience = left.length > 1 ? PATIENCE.several : PATIENCE.one;
      const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(patience)]);
      const watched = left.find((entry) => entry.job.state === "running") ?? left.at(-1);
      if (watched) await events(watched, signal);
    } catch (error) {
      if (error.name === "AbortError" || error.name === "TimeoutError") continue;
      reach(error.status === 404); // removed elsewhere
      await pause(2);
    }
  }
  following = false;
}

/** Asks for jobs; those that the service doesn't know are dropped. */
async function refresh(some) {
  for (let at = 0; at < some.length; at += ASKED) {
    const asked = some.slice(at, at + ASKED);
    const ids = asked.map((entry) => encodeURIComponent(entry.job.id)).join(",");
    const { jobs } = await (await ask(`/v1/jobs?ids=${ids}`)).json();
    for (const entry of asked) {
      const job = jobs.find(({ id }) => id === entry.job.id);
      if (job) update(entry, job);
      else drop(entry);
    }
  }
}

async function events(entry, signal) {
  const { body } = await ask(entry.job.links.events, { signal });
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let text = ""; ; ) {
    const { value, done } = await reader.read();
    if (done) return;
    const messages = (text + value).split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const data = /^data: (.*)$/m.exec(message);
      if (data) update(entry, JSON.parse(data[1]));
    }
  }
}

function update(entry, job) {
  const news = !ended(entry) && (!entry.job || entry.job.links);
  entry.job = job;
  show(entry);
  if (news && ended(entry)) tell(entry);
}

function reach(now) {
  reached = now;
  sum();
}

// Showing

function add(entry) {
  entry.item = byId("entry").content.firstElementChild.cloneNode(true);
  for (const [name, act] of Object.entries({ remove, show: toggle, copy, save, print })) {
    part(entry, `.${name}`).addEventListener("click", async () => {
      const why = ({ message, name }) => name === "TypeError" ? "The service cannot be reached." : message;
      setText(part(entry, ".notice"), (await act(entry).catch(why)) ?? "");
    });
  }
  entries.unshift(entry);
  byId("list").prepend(entry.item);
  show(entry);
}

function drop(entry) {
  if (!entries.includes(entry)) return;
  entries.splice(entries.indexOf(entry), 1);
  entry.item.remove();
  rememberJobs(rememberedJobs().filter((id) => id !== entry.job?.id));
  sum();
}

/** Says to screen readers what came of a file; of many, the status counts. */
function tell(entry) {
  if (entries.length > 3 && !entries.every(ended)) return;
  byId("news").textContent = `${nameOf(entry)}: ${part(entry, ".sentence").textContent}`;
}

function sum() {
  const done = entries.filter(ended).length;
  const counted = `${count(entries.length, "file")}: ${done} done, ${entries.length - done} to go.`;
  const away = reached ? "" : "The service cannot be reached. This page goes on when it can.";
  setText(byId("status"), [entries.length ? counted : "", away].filter(Boolean).join(" "));
  byId("none").hidden = entries.length > 0;
}

function show(entry) {
  const [name, problem, result] = [nameOf(entry), entry.problem ?? entry.job?.error, entry.job?.result];
  setText(part(entry, ".name"), name);
  for (const button of entry.item.querySelectorAll("[data-label]")) {
    button.setAttribute("aria-label", `${button.dataset.label} ${name}`);
  }
  part(entry, ".state").hidden = ended(entry);
  part(entry, "details").hidden = !result;
  if (!ended(entry)) showProgress(entry);
  if (problem) showProblem(entry, problem);
  if (result) showResult(entry, result);
  sum();
}

function showProgress({ item, job, sent, note }) {
  let [doing, share] = ["Waiting to be sent", null];
  if (job?.state === "running") {
    const { done, total } = job.progress;
    doing = "Being looked at" + (total ? `: ${done} of ${count(total, "frame")}` : "");
    share = total ? done / total : null;
  } else if (job) {
    doing = job.links ? "Waiting for its turn" : "Asking what came of it";
  } else if (sent) {
    [doing, share] = [sent < 1 ? `Being sent: ${Math.floor(100 * sent)} %` : "Sent", sent];
  }
  setText(item.querySelector(".doing"), note || `${doing}.`);
  const bar = item.querySelector("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
}

function showProblem(entry, { title, status, detail, hint }) {
  const why = detail.replace(`${nameOf(entry)}: `, "");
  setText(part(entry, ".sentence"), sentences(`${entry.job ? "Not scored" : "Not sent"}: ${why}`));
  setText(part(entry, ".judged"), sentences(hint));
  setText(part(entry, ".score"), [status, title].filter(Boolean).join(" "));
}

function showResult(entry, { answer, above_threshold: above, log_odds, limits, warnings, tracks }) {
  const set = (name, ...texts) => setText(part(entry, `.${name}`), sentences(...texts));
  const nothing = "Nothing is said about this file: neither that it is genuine nor that it is fake";
  set("sentence", answer.conclusion);
  set("mark", answer.threshold, answer.error_rates);
  part(entry, ".mark").classList.toggle("above", above === true);
  set("judged", answer.judged, log_odds === null && nothing);
  set("ratio", answer.ratio, answer.holds_for);
  set("score", answer.score);
  set("limits", "A high score does not prove a manipulation, a low one does not rule it out", limits);
  part(entry, ".warnings").replaceChildren(...warnings.map((text) => made("li", sentence(text))));
  part(entry, ".box").hidden = tracks.length < 2;
  part(entry, "tbody").replaceChildren(...tracks.map(({ track, conclusion, scored, faces }) => {
    const row = made("tr", "");
    const cells = [track + 1, sentence(conclusion), `${scored} of ${count(faces, "face")}`];
    row.append(...cells.map((text) => made("td", text)));
    return row;
  }));
  if (entry.opened) part(entry, "details").open = true;
  entry.opened = false; // once
}

function made(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

// What can be done with an answer

async function remove(entry) {
  const gone = ({ status }) => status === 404 || Promise.reject(new Error("The service did not remove it."));
  if (entry.job) await ask(`/v1/jobs/${encodeURIComponent(entry.job.id)}`, { method: "DELETE" }).catch(gone);
  drop(entry);
  entry.request?.abort();
  byId("answers").focus();
}

async function copy({ job }) {
  const text = JSON.stringify(job.result, null, 2);
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
  } else { // the page came by plain HTTP
    const area = made("textarea", text);
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  return "Copied.";
}

async function reportOf(entry) {
  return (await ask(entry.job.links.report)).text();
}

const addressOf = (text) => URL.createObjectURL(new Blob([text], { type: "text/html" }));

async function save(entry) {
  const link = made("a", "");
  link.href = addressOf(await reportOf(entry));
  link.download = `${nameOf(entry)}.html`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * Puts the report on the page, in a frame where no script runs. A frame cannot send a key, so it
 * gets the text; and it inherits this page's policy, so its styles go in through the style sheets'
 * interface. Names in a report are escaped: they cannot hold what is replaced.
 */
async function open(entry) {
  const place = part(entry, ".report");
  if (!place.firstChild) {
    const text = await reportOf(entry);
    const frame = made("iframe", "");
    frame.sandbox = "allow-same-origin allow-modals"; // to be printed
    frame.title = `Report on ${nameOf(entry)}`;
    frame.src = addressOf(text.replaceAll("style>", "template>").replaceAll(' style="', ' data-style="'));
    const loaded = new Promise((resolve) => frame.addEventListener("load", resolve));
    place.hidden = false;
    place.replaceChildren(frame);
    await loaded;
    const report = frame.contentDocument;
    const sheet = new frame.contentWindow.CSSStyleSheet();
    sheet.replaceSync(report.querySelector("template").content.textContent);
    report.adoptedStyleSheets = [sheet];
    for (const each of report.querySelectorAll("[data-style]")) each.style.cssText = each.dataset.style;
  }
  reveal(entry, true);
  return place.firstChild;
}

function reveal(entry, shown) {
  part(entry, ".report").hidden = !shown;
  part(entry, ".show").setAttribute("aria-expanded", String(shown));
  setText(part(entry, ".show"), shown ? "Hide the report" : "Show the report");
}

async function toggle(entry) {
  if (part(entry, ".show").getAttribute("aria-expanded") === "true") reveal(entry, false);
  else await open(entry);
}

async function print(entry) {
  (await open(entry)).contentWindow.print();
}

// The start

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", ({ target }) => {
    take(target.files);
    target.value = "";
  });
}
addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => document.body.classList.toggle("dropping", Boolean(relatedTarget)));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  take(event.dataTransfer.files);
});
addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
addEventListener("offline", async () => reach(await isThere())); // it may be on this machine
addEventListener("online", () => {
  reach(true);
  follow();
});
addEventListener("beforeunload", (event) => {
  if (sending) event.preventDefault(); // what was not sent would be lost
});

for (const id of rememberedJobs().reverse()) add({ job: { id, name: "…", state: "queued" } });
follow();
ask("/v1/models").catch(() => {}); // is a key needed?
