'use strict';
(() => {
const EVERY = 2000, PATIENCE = 5000, SPANS = [60, 120, 300, 600, 900], LINE = 1000;
const COLUMNS = ['Stream', 'State', 'Rows per second', 'Lag', 'Event age, p50 / p99', 'Last commit', 'Batch', 'Dead letters', 'Restarts'];
const STATES = {  // what is shown, how bad it is, what the worker's box says, and on a phone
  running: ['running', 'good', 'writing'], starting: ['starting', 'warn', 'starting'],
  waiting: ['PostgreSQL away', 'bad', 'holds its batch', 'holding'], disconnected: ['NATS away', 'bad', 'waits for NATS', 'waiting'],
  stalled: ['stalled', 'bad', 'stalled'], restarting: ['restarting', 'bad', 'restarting'],
  parked: ['parked', 'bad', 'parked'], draining: ['draining', 'warn', 'finishing'],
};
const WAYS = {copy: 'COPY, straight into the table', upsert: 'upsert, by way of a temporary table',
  staged: 'by way of a temporary table, for keys are there already', 'row by row': 'row by row, for some were refused'};
const SLOW = ['PostgreSQL at work', 'bad', 'waits for its batch', 'waiting'];
const HELD = ['NATS: held up', 'bad', 'waits for NATS', 'waiting'];
const byId = (id) => document.getElementById(id);
const views = new Map();
let last = null, heard = 0, came = 0, skew = 0;

// ---- small helpers. Everything that came with a message goes through textContent or setAttribute, never markup.

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function s(tag, attributes, ...children) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
function say(element, text) {  // only when it changed: a screen reader must not hear the same every two seconds
  if (element.textContent !== text) element.textContent = text;
}
function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}
const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
const number = (value) => isNumber(value) ? Math.round(value).toLocaleString('en-US') : '–';
function rate(value) {
  if (!isNumber(value)) return '–';
  return value > 0 && value < 10 ? value.toFixed(1) : number(value);
}
function duration(seconds) {
  if (!isNumber(seconds)) return '–';
  if (seconds < 0.0005) return '0 s';
  if (seconds < 0.9995) return `${Math.max(1, Math.round(seconds * 1000))} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds % 3600 / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds % 86400 / 3600)} h`;
}
function ago(time) {
  if (!isNumber(time)) return 'never';
  const seconds = Math.max(0, Date.now() / 1000 - skew - time);
  if (seconds < 1) return 'just now';
  return seconds < 10 ? `${Math.floor(seconds)} s ago` : `${duration(seconds)} ago`;
}
function moment(time) {  // with the day, where the time alone does not tell
  return Date.now() / 1000 - skew - time < 72000 ? clock(time) : `${new Date(time * 1000).toLocaleDateString()} ${clock(time)}`;
}
const clock = (time) => isNumber(time) ? new Date(time * 1000).toLocaleTimeString([], {hour12: false}) : '–';
function bytes(value) {
  if (!isNumber(value)) return '–';
  const power = Math.min(4, Math.floor(Math.log2(Math.max(1, value)) / 10));
  const scaled = value / 1024 ** power;
  return `${scaled < 10 && power ? scaled.toFixed(1) : Math.round(scaled)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`;
}
const sum = (counts) => Object.values(counts || {}).reduce((total, value) => total + (isNumber(value) ? value : 0), 0);
const list = (value) => Array.isArray(value) ? value : [];
const lastOf = (values) => list(values).at(-1);
const text = (value) => value === null || value === undefined ? '' : String(value);

// ---- what is stuck: the left part, the middle or the right

function told(stream) {  // of a state: the word and so on; one that waits may have its connection all the same
  if (stream.state === 'waiting' && stream.postgres_connected === true) return SLOW;
  return (stream.state === 'disconnected' && stream.nats_connected === true ? HELD : STATES[stream.state]) || [text(stream.state) || 'unknown', 'warn', text(stream.state)];
}
function stuck(stream) {
  const [, severity] = told(stream);
  const reason = text(stream.reason);
  const at = {left: '', middle: severity === 'good' ? '' : severity || '', right: ''};
  if (stream.nats_connected === false && stream.state !== 'starting') at.left = 'bad';
  if (stream.postgres_connected === false && stream.state !== 'starting') at.right = 'bad';
  if (stream.state === 'disconnected') [at.left, at.middle] = ['bad', ''];
  if (stream.state === 'waiting') [at.right, at.middle] = ['bad', ''];
  if (at.middle === 'bad') {  // a process that is not there has no connections to blame: what it said last tells
    at.left = at.right = '';
    if (/schema apply|\b(table|column|PostgreSQL|database)\b/i.test(reason)) at.right = 'bad';
    else if (/\b(NATS|JetStream|consumer)\b/i.test(reason)) at.left = 'bad';
  }
  return at;
}

// ---- the flow, one picture per stream

function fit(element, string, width) {
  say(element, string);
  element.removeAttribute('textLength');
  const full = element.getComputedTextLength();
  if (full > width && full * 0.85 <= width) {  // a little narrower is better than cut
    mark(element, 'lengthAdjust', 'spacingAndGlyphs');
    mark(element, 'textLength', Math.floor(width));
  } else if (full > width && full > 0) {
    say(element, `${string.slice(0, Math.max(1, Math.floor(string.length * width / full) - 1))}…`);
  }
}
function box() {
  const parts = {rect: s('rect', {y: 1, height: 42, rx: 5}), title: s('text', {y: 19}), sub: s('text', {class: 'sub', y: 35})};
  parts.group = s('g', {}, parts.rect, parts.title, parts.sub);
  return parts;
}
function lane() {
  const view = {boxes: [box(), box(), box()], links: [s('path'), s('path')], tips: [s('path'), s('path')]};
  view.svg = s('svg', {role: 'img', height: 44}, ...view.links, ...view.tips, ...view.boxes.map((each) => each.group));
  return view;
}
function drawLane(view, name, stream) {
  const width = byId('lanes').clientWidth;
  if (!width) return;
  const narrow = width < 560, at = stuck(stream);
  const [left, middle, right] = (narrow ? [0.31, 0.25, 0.36] : [0.26, 0.26, 0.26]).map((share) => Math.round(width * share));
  const gap = (width - left - middle - right) / 2, pad = narrow ? 6 : 12;
  const places = [[0, left], [left + gap, middle], [width - right, right]];
  const pending = isNumber(stream.consumer_pending) ? `${number(stream.consumer_pending)} pending` : list(stream.subjects).join(' ');
  const noTable = at.right && stream.postgres_connected !== false && stream.state !== 'waiting';
  const unconnected = 'not connected', history = stream.history || {};
  const [shown, , doing, short] = told(stream);
  const noNats = stream.nats_connected === false || (stream.state === 'disconnected' && stream.nats_connected !== true);
  const texts = [
    [text(stream.stream) || name, at.left ? (noNats ? unconnected : 'see the reason') : pending],
    narrow ? [short || doing, `${rate(lastOf(history.rows_per_s))} rows/s`] : [name, doing],
    [text(stream.table), at.right ? (noTable ? 'see the reason' : unconnected) : `${number(stream.rows_written)} rows`],
  ];
  [at.left, at.middle, at.right].forEach((how, i) => {
    const {group, rect, title, sub} = view.boxes[i], [x, w] = places[i];
    mark(group, 'class', how);
    mark(rect, 'x', x + 0.75); mark(rect, 'width', w - 1.5);
    mark(title, 'x', x + pad); mark(sub, 'x', x + pad);
    fit(title, texts[i][0], w - 2 * pad); fit(sub, texts[i][1], w - 2 * pad);
  });
  const moving = stream.state === 'running' && lastOf(history.rows_per_s) > 0;
  [at.left, at.right].forEach((how, i) => {
    const from = places[i][0] + places[i][1] + 4, to = places[i + 1][0] - 4, mid = (from + to) / 2, tip = narrow ? 4 : 5;
    mark(view.links[i], 'd', `M${from} 22H${to}`);
    mark(view.links[i], 'class', how ? 'cut' : moving ? 'flowing' : '');
    mark(view.tips[i], 'd', how ? `M${mid - 5} 17L${mid + 5} 27M${mid + 5} 17L${mid - 5} 27` : `M${to - tip} ${22 - tip}L${to} 22L${to - tip} ${22 + tip}`);
    mark(view.tips[i], 'class', how ? 'cross' : moving ? 'tip' : '');
  });
  const where = at.left ? 'stuck at NATS' : at.right ? 'stuck at PostgreSQL' : at.middle === 'bad' ? 'stuck in the worker' : 'nothing is stuck';
  mark(view.svg, 'aria-label', `${name}: ${shown}, ${where}`);
  mark(view.svg, 'data-stuck', at.left ? 'left' : at.right ? 'right' : at.middle === 'bad' ? 'middle' : '');
}

// ---- charts: up to the last fifteen minutes, right edge is now; shortly after the start fewer, so that they are seen

const spanOf = (points, step) => SPANS.find((span) => (points.length - 1) * step <= span) || SPANS.at(-1);

function chart(kind, height) {
  const view = {height, area: s('path', {class: 'area'}), line: s('path', {class: 'line'}), spikes: s('path', {class: 'spikes'}), cursor: s('path', {class: 'cursor'})};
  view.svg = s('svg', {class: kind, viewBox: `0 0 ${LINE} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true'},
    s('path', {class: 'base', d: `M0 ${height - 0.5}H${LINE}`}), view.area, view.line, view.spikes, view.cursor);
  return view;
}
function scale(points) {  // the highest value; where that is a rare one far above the others, what makes those seen
  const known = points.filter(isNumber).sort((a, b) => a - b), highest = known.at(-1) || 0;
  const usual = known[Math.floor(0.9 * (known.length - 1))] || 0;
  return usual > 0 && highest > 3 * usual ? 1.25 * usual : highest;
}
function drawChart(view, values, step) {
  const points = list(values), top = scale(points) || 1;
  const usable = view.height - 4, span = spanOf(points, step), x = (i) => LINE - (points.length - 1 - i) * step / span * LINE;
  let line = '', area = '', spikes = '', start = -1;
  const y = (value) => (2 + usable * (1 - Math.min(1, value / top))).toFixed(1);
  points.forEach((value, i) => {
    if (!isNumber(value)) { start = -1; return; }
    if (start < 0) { line += `M${x(i).toFixed(1)} ${y(value)}h0.1`; area += `M${x(i).toFixed(1)} ${view.height}`; start = i; }
    line += `L${x(i).toFixed(1)} ${y(value)}`;
    if (value > top) spikes += `M${x(i).toFixed(1)} 0v${(view.height / 5).toFixed(1)}`;
    area += `L${x(i).toFixed(1)} ${y(value)}`;
    if (!isNumber(points[i + 1])) area += `L${x(i).toFixed(1)} ${view.height}Z`;
  });
  mark(view.line, 'd', line); mark(view.area, 'd', area); mark(view.spikes, 'd', spikes);
}
function figure(title, kind, format) {
  const view = chart(kind, 96);
  Object.assign(view, {format, points: [], step: 5, pointed: null, readout: h('span'), top: h('span'), begin: h('span'), caption: h('span', {class: 'label'}, title)});
  view.element = h('figure', {}, h('figcaption', {}, view.caption, view.readout), view.svg,
    h('small', {}, view.begin, view.top, h('span', {}, 'now')));
  const point = (event) => {
    const bounds = view.svg.getBoundingClientRect();
    view.pointed = event ? (event.clientX - bounds.left) / bounds.width : null;
    readOut(view);
  };
  view.svg.addEventListener('pointermove', point);
  view.svg.addEventListener('pointerleave', () => point(null));
  return view;
}
function readOut(view) {
  if (view.pointed === null) {
    mark(view.cursor, 'd', '');
    say(view.readout, view.format(lastOf(view.points)));
    return;
  }
  const back = Math.round((1 - view.pointed) * spanOf(view.points, view.step) / view.step), value = view.points[view.points.length - 1 - back];
  mark(view.cursor, 'd', `M${(view.pointed * LINE).toFixed(0)} 0V${view.height}`);
  say(view.readout, `${clock(last.now - back * view.step)}: ${isNumber(value) ? view.format(value) : 'unknown'}`);
}
function drawFigure(view, points, step) {
  Object.assign(view, {points: list(points), step});
  drawChart(view, points, step);
  const known = view.points.filter(isNumber);
  say(view.begin, `${spanOf(view.points, step) / 60} min ago`);
  const highest = Math.max(...known), top = scale(view.points);
  say(view.top, !known.length ? 'nothing known yet' : highest > top ? `up to ${view.format(top)} is drawn, highest ${view.format(highest)}` : `highest ${view.format(highest)}`);
  readOut(view);
}

// ---- one stream: its row and what opens below it

function cell(label, kind, ...children) {
  return h('td', {role: 'cell', 'data-label': label, class: kind}, ...children);
}
function create(name) {
  const id = `details-${views.size}-${Math.random().toString(36).slice(2, 8)}`;
  const view = {lane: lane(), rows: chart('rows', 30), lag: chart('lag', 30), open: false};
  for (const part of ['state', 'rate', 'behind', 'p50', 'p99', 'commit', 'batch', 'letters', 'restarts']) view[part] = h('span');
  for (const part of ['pending', 'waited', 'filled', 'reasons', 'pace', 'since']) view[part] = h('small');
  view.without = h('small', {class: 'without'});
  view.reasons.className = 'reason';
  view.button = h('button', {type: 'button', class: 'name', 'aria-expanded': 'false', 'aria-controls': id}, name);
  view.row = h('tr', {role: 'row', class: 'row', 'data-stream': name},
    cell(COLUMNS[0], 'first', view.button), cell(COLUMNS[1], 'second', view.state, view.without),
    cell(COLUMNS[2], 'wide', h('div', {class: 'chart'}, view.rate, view.rows.svg)),
    cell(COLUMNS[3], 'wide', h('div', {class: 'chart'}, h('span', {class: 'behind'}, view.behind, view.pending), view.lag.svg)),
    cell(COLUMNS[4], 'two', view.p50, ' / ', view.p99), cell(COLUMNS[5], '', view.commit), cell(COLUMNS[6], '', view.batch),
    cell(COLUMNS[7], '', view.letters, view.reasons, view.pace), cell(COLUMNS[8], '', view.restarts));
  view.body = h('td', {role: 'cell', colspan: COLUMNS.length});
  view.details = h('tr', {role: 'row', class: 'details', id, 'data-stream': name, hidden: ''}, view.body);
  view.bigRows = figure('Rows per second', 'rows', (value) => `${rate(value)} rows/s`);
  view.bigLag = figure('Lag', 'lag', (value) => duration(value));
  view.why = h('p', {class: 'why'});
  view.lacks = h('p', {class: 'lacks'});
  view.facts = h('div', {class: 'facts'});
  view.latest = h('div', {class: 'letters'});
  view.body.append(view.why, view.lacks, h('div', {class: 'big'}, view.bigRows.element, view.bigLag.element), view.facts, view.latest);
  view.row.addEventListener('click', () => toggle(name));
  view.row.addEventListener('keydown', (event) => {
    if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
    const buttons = [...document.querySelectorAll('.name')];
    const next = buttons[buttons.indexOf(view.button) + (event.key === 'ArrowDown' ? 1 : -1)];
    if (next) { next.focus(); event.preventDefault(); }
  });
  byId('lanes').append(view.lane.svg);
  byId('rows').append(view.row, view.details);
  views.set(name, view);
  return view;
}
function toggle(name) {
  const view = views.get(name);
  view.open = !view.open;
  mark(view.button, 'aria-expanded', view.open);
  view.row.classList.toggle('open', view.open);
  view.details.hidden = !view.open;
  if (view.open) drawDetails(view, name, last.streams[name]);
}
function drawRow(view, name, stream) {
  const [word, severity] = told(stream);
  const history = stream.history || {}, step = isNumber(history.step) && history.step > 0 ? history.step : 5;
  const messages = stream.messages || {};
  say(view.state, word);
  mark(view.state, 'class', `state ${severity}`);
  mark(view.state, 'title', text(stream.reason));
  say(view.without, omitted(stream) && `without ${omitted(stream)}`);
  say(view.rate, rate(lastOf(history.rows_per_s)));
  drawChart(view.rows, history.rows_per_s, step);
  say(view.behind, isNumber(stream.lag_seconds) ? duration(stream.lag_seconds) : 'unknown');
  mark(view.behind, 'class', stream.lag_seconds > 60 ? 'alarm' : '');
  say(view.pending, isNumber(stream.consumer_pending) ? `${number(stream.consumer_pending)} pending` : '');
  drawChart(view.lag, history.lag, step);
  say(view.p50, duration(stream.event_age_p50));
  say(view.p99, duration(stream.event_age_p99));
  say(view.batch, number(stream.batch_messages));
  say(view.letters, number(messages.deadlettered));
  mark(view.letters, 'class', messages.deadlettered > 0 ? 'notice' : '');
  const reasons = [...new Set(list(stream.dead_letters).map((letter) => text(letter.reason)))];
  say(view.reasons, reasons.slice(0, 3).join(', '));
  say(view.pace, stream.dead_letters_per_minute > 0 ? `${number(stream.dead_letters_per_minute)} in the last minute` : '');
  mark(view.pace, 'class', 'notice');
  say(view.restarts, number(stream.restarts));
  mark(view.restarts, 'class', stream.restarts > 0 && stream.state !== 'running' ? 'alarm' : '');
  const letters = String(stream.dead_letters_per_minute || 0).split('.')[0].length;  // by digits: cards that change places all the time cannot be read
  for (const element of [view.row, view.details, view.lane.svg]) {
    element.style.setProperty('--letters', letters);
    element.classList.toggle('first-of-all', severity === 'bad');
    element.classList.toggle('next-of-all', stream.dead_letters_per_minute > 0);
  }
  tick(view, stream);
  drawLane(view.lane, name, stream);
  if (view.open) drawDetails(view, name, stream);
}
function omitted(stream) {  // short: all of them are in the details
  const names = list(stream.columns_omitted).map(text);
  return names.length > 4 ? `${names.slice(0, 3).join(', ')} and ${names.length - 3} more` : names.join(', ');
}
function tick(view, stream) {
  say(view.commit, ago(stream.last_commit));
}
function block(title, pairs, kind) {
  const rows = pairs.flatMap(([key, value]) => [h('dt', {}, key), h('dd', {}, value)]);
  return h('div', kind ? {class: kind} : {}, h('h3', {}, title), h('dl', {}, ...rows));
}
function counted(counts) {
  return Object.entries(counts || {}).filter(([, value]) => value).map(([key, value]) => [key, number(value)]);
}
function drawDetails(view, name, stream) {
  const history = stream.history || {}, step = isNumber(history.step) && history.step > 0 ? history.step : 5, m = stream.messages || {};
  say(view.why, text(stream.reason));
  view.why.hidden = !stream.reason;
  say(view.lacks, `${text(stream.table)} is written without ${list(stream.columns_omitted).map(text).join(', ')}: the table lacks them. \`eventwriter schema apply\` adds what a table of ours lacks; streams.${name}.omit names what is not wanted.`);
  view.lacks.hidden = !list(stream.columns_omitted).length;
  drawFigure(view.bigRows, history.rows_per_s, step);
  drawFigure(view.bigLag, history.lag, step);
  const seconds = stream.batch_seconds || {}, spent = sum(seconds);
  const inHand = (m.taken || 0) - (m.written || 0) - (m.deadlettered || 0) - (m.already_done || 0) - (m.excluded || 0) - (m.released || 0);
  const blocks = [
    block('Messages', [['taken', number(m.taken)], ['written', number(m.written)], ['dead letters', number(m.deadlettered)],
      ...(isNumber(stream.dead_letters_per_minute) ? [['dead letters in the last minute', number(stream.dead_letters_per_minute)]] : []),
      ['already done', number(m.already_done)], ['excluded', number(m.excluded)], ['released', number(m.released)],
      ['in hand', number(Math.max(0, inHand))], ['delivered again', number(m.redelivered)],
      ...(stream.reread ? [['read again, for the ledger lacked them', number(stream.reread)]] : []),
      ...(stream.missing ? [['missing, and gone from the stream', `up to ${number(stream.missing)}: eventwriter check tells`]] : [])]),
    block('Volume', [['rows written', number(stream.rows_written)], ['payload taken', bytes(stream.bytes_taken)],
      ['pending in NATS', number(stream.consumer_pending)], ['not yet acknowledged', number(stream.consumer_ack_pending)],
      ['last batch', number(stream.batch_messages)]]),
  ];
  if (spent > 0) blocks.push(block('Where the time goes', Object.entries(seconds).map(([stage, value]) => [stage, `${Math.round(100 * value / spent)} %`])));
  for (const [title, counts] of [['Rows not written', stream.rows_skipped], ['Rejected', stream.rejects], ['Repaired values', stream.repairs], ['Errors', stream.errors]]) {
    const rows = counted(counts);
    if (rows.length) blocks.push(block(title, rows));
  }
  blocks.push(block('Processes', list(stream.processes).map((process) => [text(process.name),
    [text(process.state), ...(process.pid ? [`pid ${text(process.pid)}`, `up ${duration(process.uptime)}`, bytes(process.rss_bytes)] : []),
      `${number(process.restarts)} ${process.restarts === 1 ? 'restart' : 'restarts'}`].join(', ')]), 'long'));
  blocks.push(block('Route', [['stream', text(stream.stream)], ['subjects', list(stream.subjects).join(', ')],
    ['consumer', text(stream.durable)], ['table', text(stream.table)],
    ...(stream.batch_way ? [['last batch', WAYS[stream.batch_way] || text(stream.batch_way)]] : []),
    ...(isNumber((stream.ledger || {}).highest) ? [['ledger', `done up to sequence ${number(stream.ledger.highest)}, in ${number(stream.ledger.ranges)} ${stream.ledger.ranges === 1 ? 'range' : 'ranges'}`]] : [])], 'long'));
  view.facts.replaceChildren(...blocks);
  const letters = list(stream.dead_letters).slice(0, 5);
  const told = JSON.stringify([letters, location.hash]);
  if (view.told === told) return;  // what somebody reads or marks stays as it is
  view.told = told;
  view.latest.replaceChildren(h('h3', {}, letters.length ? 'Latest dead letters' : 'No dead letters'));
  if (!letters.length) return;
  view.latest.append(h('ul', {}, ...letters.map((letter) => {
    const place = placeOf(name, letter);
    return h('li', place === location.hash ? {'aria-current': 'true'} : {},
      h('b', {}, h('a', {href: place}, text(letter.reason))), ' ', h('small', {}, `${clock(letter.time)}, subject ${text(letter.subject)}, sequence ${text(letter.sequence)}`),
      h('p', {}, text(letter.detail)),
      ...(place === location.hash ? [...(letter.view ? [h('pre', {}, text(letter.view))] : []),
        h('small', {}, 'All of it: ', h('code', {}, `eventwriter dlq list --stream ${name} --reason ${text(letter.reason)}`), ' has its number, ', h('code', {}, 'eventwriter dlq show NUMBER'), ' shows it.')] : []));
  })), h('small', {}, 'All of them: ', h('code', {}, `eventwriter dlq list --stream ${name}`)));
}

// ---- a dead letter has an address of its own: to be looked at, and to be sent to somebody

const placeOf = (name, letter) => `#dead-letter/${encodeURIComponent(name)}/${encodeURIComponent(text(letter.sequence))}`;
let opened = '';
function openPlace() {  // once for each address, as soon as what it names is known
  if (!last || opened === location.hash) return;
  for (const [name, view] of views) {
    const letters = list((last.streams[name] || {}).dead_letters);
    if (!letters.some((letter) => placeOf(name, letter) === location.hash)) continue;
    opened = location.hash;
    if (view.open) drawDetails(view, name, last.streams[name]); else toggle(name);
    view.latest.scrollIntoView({block: 'center'});
    return;
  }
}
window.addEventListener('hashchange', openPlace);

// ---- the whole

function causes(status, names) {  // each once, with whom it stops; an earlier service tells them stream by stream
  if (Array.isArray(status.causes)) {
    return status.causes.map((cause) => [text(cause.who), text(cause.text) + (isNumber(cause.since) ? `, since ${moment(cause.since)}` : '')]);
  }
  const groups = new Map();
  for (const problem of list(status.problems)) groups.set(text(problem.text), [...(groups.get(text(problem.text)) || []), text(problem.stream)]);
  return [...groups].map(([what, who]) => [who.length > 1 && who.length === names.length ? `all ${who.length} streams` : who.join(', '), what]);
}

function draw(status) {
  const streams = status.streams || {}, names = Object.keys(streams), problems = list(status.problems);
  for (const [name, view] of views) {
    if (!Object.hasOwn(streams, name)) {
      view.lane.svg.remove(); view.row.remove(); view.details.remove();
      views.delete(name);
    }
  }
  byId('flow').hidden = byId('streams').hidden = !names.length;
  for (const name of names) drawRow(views.get(name) || create(name), name, streams[name]);
  const affected = new Set(problems.map((problem) => text(problem.stream)).filter((name) => Object.hasOwn(streams, name))).size;
  const worst = names.some((name) => (STATES[streams[name].state] || [])[1] === 'bad');
  let verdict = 'Ready: ' + (names.length === 1 ? 'the stream is being written' : `all ${names.length} streams are being written`);
  let how = 'good';
  if (!status.ready) {
    how = worst || problems.length ? 'bad' : 'warn';
    verdict = affected ? `Not ready: ${affected} of ${names.length} streams ${affected === 1 ? 'needs' : 'need'} attention` : 'Not ready yet';
  } else if (problems.length) {
    [how, verdict] = ['warn', `Ready, with ${problems.length} ${problems.length === 1 ? 'problem' : 'problems'}`];
  }
  say(byId('verdict'), verdict);
  mark(byId('health'), 'class', `banner ${how}`);
  const told = causes(status, names).map(([who, what]) => [who, what]);
  if (byId('problems').dataset.told !== JSON.stringify(told)) {
    byId('problems').dataset.told = JSON.stringify(told);
    byId('problems').replaceChildren(...told.map(([who, what]) => h('li', {}, h('b', {}, who), ' ', what)));
  }
  const total = (pick) => names.reduce((all, name) => all + (pick(streams[name]) || 0), 0);
  const dying = total((each) => each.dead_letters_per_minute);
  say(byId('totals'), names.length ? `${rate(total((each) => lastOf((each.history || {}).rows_per_s)))} rows/s, ${number(total((each) => (each.messages || {}).deadlettered))} dead letters${dying ? `, ${number(dying)} of them in the last minute` : ''}` : '');
  document.title = status.ready ? 'eventwriter: ready' : `eventwriter: ${verdict.toLowerCase()}`;
}
function tickAll() {
  if (!last) return;
  for (const [name, view] of views) if (last.streams[name]) tick(view, last.streams[name]);
  const up = isNumber(last.uptime) ? last.uptime + (performance.now() - came) / 1000 : isNumber(last.started) ? Date.now() / 1000 - skew - last.started : null;
  const since = up === null ? '' : `, up ${duration(Math.floor(up))}`;
  say(byId('about'), `version ${text(last.version)}${since}, read ${clock(heard / 1000)}`);
}
function silent(why) {
  document.body.classList.add('stale');
  byId('silent').hidden = false;
  byId('health').hidden = true;
  say(byId('silence'), heard ? `No answer since ${clock(heard / 1000)} (${why}). What is shown is what was known then. Trying again every 2 s.`
    : `No answer yet (${why}). Trying again every 2 s.`);
  document.title = 'eventwriter: no answer';
}
async function ask() {
  const response = await fetch('status', {cache: 'no-store', signal: AbortSignal.timeout(PATIENCE)});
  if (!response.ok) throw new Error(`status ${response.status}`);
  const status = await response.json();
  if (!status || !status.streams || typeof status.streams !== 'object') throw new Error('not a status');
  return status;
}
function show(status) {
  heard = Date.now();
  came = performance.now();
  skew = isNumber(status.now) ? heard / 1000 - status.now : 0;
  last = status;
  document.body.classList.remove('stale');
  byId('silent').hidden = true;
  byId('health').hidden = false;
  draw(status);
  openPlace();
  tickAll();
}
async function poll() {
  let status = null;
  try {
    status = await ask();
  } catch (error) {
    silent(error.name === 'TypeError' ? 'cannot connect' : error.name === 'TimeoutError' ? `none within ${PATIENCE / 1000} s` : text(error.message));
  }
  try {
    if (status) show(status);
  } catch (error) {
    console.error(error);
    silent('its answer cannot be shown');
  }
  setTimeout(poll, EVERY);
}
byId('columns').append(...COLUMNS.map((title) => h('th', {role: 'columnheader', scope: 'col'}, title)));
new ResizeObserver(() => {
  if (last) for (const [name, view] of views) drawLane(view.lane, name, last.streams[name]);
}).observe(byId('lanes'));
setInterval(tickAll, 1000);
poll();
})();
