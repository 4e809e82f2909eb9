// The formulas of streams/capacity/model.py, for the page: the same names, in the same order. A test compares the numbers.
// `capacity(load, k)`: load has the fields of a Load, k the constants; both are written into the page by deploy/site/build.py.
"use strict";

const TASKS = ["fraud", "recommendations", "ctr"];
const KINDS = { fraud: ["orders", "order"], recommendations: ["clicks", "click"], ctr: ["impressions", "impression"] };
const DAY_S = 86400;
const sum = (values) => values.reduce((before, value) => before + value, 0);

function capacity(load, k) {
  const clicks = Math.max(0, 1 - load.orders - load.impressions);
  const shares = { fraud: load.orders, recommendations: clicks, ctr: load.impressions };
  const peak = load.events_per_s * load.peak;
  const engineUs = sum(TASKS.map((task) => shares[task] * k[`${task}_us`]));
  const fullUs = k.worker_us + engineUs;
  const workers = Math.max(1, Math.ceil(peak / (((1 - load.headroom) * 1e6) / fullUs)));
  const partitions = Math.max(4, Math.ceil(Math.ceil(workers * load.growth) / 4) * 4);
  const slots = Math.max(k.slots, Math.ceil((load.users * load.active) / workers));
  return {
    workers, partitions, slots,
    cores: cores(load, k, shares, workers, engineUs),
    memory_mb: memory(load, k, workers, slots),
    disk_gb: disk(load, k, shares, partitions),
  };
}

function labelling(load, k, shares) {
  const answered = shares.recommendations * load.answers;
  const ads = shares.ctr * load.slate;
  const labels = shares.fraud + answered + ads * load.ad_clicks;
  const drawn = load.ad_clicks + (1 - load.ad_clicks) * k.negatives;
  return [labels, { fraud: shares.fraud, recommendations: answered, ctr: ads * drawn }];
}

function cores(load, k, shares, workers, engineUs) {
  const peak = load.events_per_s * load.peak;
  const each = peak / workers;
  const worker = (k.quiet_cores * Math.min(each, 1000)) / 1000 + (Math.max(0, each - 1000) * (k.worker_us + engineUs)) / 1e6;
  const engines = Math.min((peak * engineUs) / 1e6, workers * worker);
  const [labels, examples] = labelling(load, k, shares);
  const joinUs = k.served_us + labels * k.label_us + sum(Object.values(examples)) * k.example_us;
  return {
    engines,
    "workers, besides": workers * worker - engines,
    "label join": (load.events_per_s * joinUs) / 1e6,
    "fine-tune": k.fine_tune_cores,
  };
}

function memory(load, k, workers, slots) {
  return {
    workers: workers * k.worker_mb,
    "users above 65,536 a worker": (workers * (slots - k.slots) * k.slot_bytes) / 1e6,
    catalogue: (workers * load.items * k.catalogue_row_bytes * k.releases_kept) / 1e6,
    "fine-tune": k.learner_mb,
    "label join": k.join_mb,
  };
}

function disk(load, k, shares, partitions) {
  const aDay = (load.events_per_s * DAY_S * load.replication) / 1e9;
  const [labels, examples] = labelling(load, k, shares);
  const found = {};
  for (const task of TASKS) {
    const events = shares[task] * aDay;
    const [topic, record] = KINDS[task];
    found[`events.${topic}`] = events * k[`${record}_bytes`] * load.retention_days;
    found[`scores.${task}`] = events * k[`${task}_score_bytes`] * load.scores_days;
    found[`served.${task}`] = events * k[`${task}_served_bytes`] * load.served_days;
  }
  found["events.labels"] = aDay * labels * k.label_bytes * load.labels_days;
  const made = sum(TASKS.map((task) => examples[task] * k[`${task}_example_bytes`]));
  found["training.examples"] = aDay * made * load.examples_days;
  const rows = (load.users * k.row_bytes) / 1e9;
  const waiting = (waits(load, k, shares) * k.waiting_bytes) / 1e9;
  const newest = (partitions * k.segment_mb) / 1e3;
  found["state.users"] = (rows * k.dirty + newest) * load.replication;
  found["state.labels"] = (waiting * k.dirty + newest) * load.replication;
  found["entities.events"] = ((load.users * k.entities * k.touch_bytes) / 1e9) * 2 * load.replication;
  found["workers' folders"] = rows * k.dirty;
  found["learner's folder"] = waiting * k.dirty;
  return found;
}

function waits(load, k, shares) {
  const clicked = Math.min(1, load.slate * load.ad_clicks);
  const days = shares.fraud * k.fraud_days
    + shares.recommendations * (k.recommendations_days + load.answers * k.recommendations_answered_days)
    + shares.ctr * (k.ctr_days + clicked * k.ctr_answered_days);
  return load.events_per_s * DAY_S * days;
}

const said = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });

function table(title, unit, scale, parts) {
  const names = Object.keys(parts);
  const most = names.reduce((best, name) => (parts[name] > parts[best] ? name : best), names[0]);
  const rows = [[title, sum(Object.values(parts)), "th"], ...names.map((name) => [name, parts[name], "td"])];
  return rows.map(([name, value, cell]) => {
    const row = document.createElement("tr");
    for (const text of [name, `${said(value * scale)} ${unit}`, name === most ? "dominates" : ""]) {
      row.append(Object.assign(document.createElement(cell), { textContent: text }));
    }
    return row;
  });
}

function start(form) {
  const { constants } = JSON.parse(document.getElementById("capacity-constants").textContent);
  const into = document.getElementById("capacity-plan");
  const show = () => {
    const fields = [...form.querySelectorAll("input")];
    const load = Object.fromEntries(fields.map((field) => [field.name, field.valueAsNumber]));
    if (!form.checkValidity() || fields.some((field) => Number.isNaN(field.valueAsNumber)) || load.orders + load.impressions > 1) {
      into.replaceChildren(Object.assign(document.createElement("caption"), { textContent: "A value is out of its bounds, or orders and impressions are more than all events." }));
      return;
    }
    const made = capacity(load, constants);
    const caption = `${said(made.workers)} workers, ${said(made.partitions)} partitions, state.slots of ${said(made.slots)}`;
    into.replaceChildren(
      Object.assign(document.createElement("caption"), { textContent: caption }),
      ...table("Cores at the peak", "", 1, made.cores),
      ...table("Memory", "GB", 1e-3, made.memory_mb),
      ...table("Disk, all replicas", "GB", 1, made.disk_gb),
    );
  };
  form.addEventListener("input", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
}

if (typeof document !== "undefined") {
  const form = document.getElementById("capacity-form");
  if (form) start(form);
} else {
  module.exports = { capacity };
}
