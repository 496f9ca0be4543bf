// The page: files in, numbers or one message out. ?model=URL&image=URL&landmarks=URL, any of them,
// take the place of files; where all three are given, it scores at once.

const form = document.querySelector("form");
const message = document.querySelector("#message");
const answer = document.querySelector("#answer");
const given = new URLSearchParams(location.search);
const NAMES = { model: "exported file", image: "photograph", landmarks: "landmarks file" };

async function blob(name) {
  const file = form.elements[name].files[0];
  if (file) return file;
  if (!given.has(name)) throw new Error(`choose the ${NAMES[name]}`);
  let response;
  try {
    response = await fetch(given.get(name));
  } catch {
    throw new Error(`${given.get(name)} cannot be fetched`);
  }
  if (!response.ok) throw new Error(`${given.get(name)} cannot be fetched: ${response.status}`);
  return response.blob();
}

async function pixels(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error("the photograph cannot be read as an image");
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  return canvas.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function points(file) {
  let read;
  try {
    read = JSON.parse(await file.text());
  } catch {
    throw new Error("the landmarks are not JSON");
  }
  if (Array.isArray(read) && read.length === 1) [read] = read; // a list of one face
  read = read?.points ?? read;
  const pair = (each) => Array.isArray(each) && each.length === 2 && each.every(Number.isFinite);
  if (!Array.isArray(read) || read.length !== 68 || !read.every(pair)) {
    throw new Error("the landmarks are not 68 points [x, y] of one face");
  }
  return read;
}

function show({ cells, fused, llr }) {
  const row = (...texts) => {
    const line = document.createElement("tr");
    for (const [place, text] of texts.entries()) {
      const cell = document.createElement(place === 0 ? "th" : "td");
      cell.textContent = text;
      line.append(cell);
    }
    line.lastChild.className = "num";
    return line;
  };
  const signed = (value) => (value > 0 ? "+" : "") + value.toFixed(4);
  const lines = cells.map(({ detector, region, logOdds }) => row(detector, region, signed(logOdds)));
  const total = cells.length ? [row("Fused", "", signed(fused))] : [];
  if (cells.length && llr !== undefined) total.push(row("Log-likelihood ratio", "", signed(llr)));
  answer.tBodies[0].replaceChildren(...lines);
  answer.tFoot.replaceChildren(...total);
  answer.hidden = !cells.length;
  say(cells.length ? "" : "No region can be judged: no verdict.");
}

function say(text, state = "done") {
  message.textContent = text;
  message.className = state === "error" ? "error" : "";
  document.body.dataset.state = state;
  form.querySelector("button").disabled = state === "busy";
}

async function run() {
  answer.hidden = true;
  say("Scoring ...", "busy");
  try {
    const [model, image, landmarks] = await Promise.all(Object.keys(NAMES).map(blob));
    const faces = [await pixels(image), await points(landmarks)];
    const { open, score } = await import("./score.js").catch(() => {
      throw new Error("onnxruntime-web is not here: run npm install in this page's folder");
    });
    show(await score(await open(new Uint8Array(await model.arrayBuffer())), ...faces));
  } catch (error) {
    say(`Not scored: ${error.message}`, "error");
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
if (Object.keys(NAMES).every((name) => given.has(name))) run();
