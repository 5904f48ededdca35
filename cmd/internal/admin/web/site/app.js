// What the pages can do with a script: follow changes, and tell the time. Without
// it everything works but has to be loaded again by hand.
'use strict';
(() => {
  const root = document.documentElement;

  // Somebody who came from another site kept the cookie back once: look again.
  const login = document.querySelector('form[data-next]');
  if (login) {
    fetch(login.dataset.next, { method: 'HEAD', cache: 'no-store' }).then((r) => {
      if (r.ok && !new URL(r.url).pathname.startsWith('/login')) location.replace(login.dataset.next);
    }).catch(() => {});
    return;
  }
  if (!('follow' in root.dataset)) return;

  const sign = document.getElementById('live');
  let mark = root.dataset.mark;
  let clock = Date.now() - Date.parse(document.querySelector('footer time').dateTime); // ours less the service's

  function say(text, off) {
    sign.hidden = false;
    if (sign.textContent !== text) sign.textContent = text;
    sign.classList.toggle('off', off);
  }

  // span says a duration as the service does.
  function span(s) {
    const m = Math.floor(s / 60), h = Math.floor(m / 60);
    if (s < 60) return s + ' s';
    if (m < 10 && s % 60) return m + ' min ' + (s % 60) + ' s';
    if (h < 1) return m + ' min';
    if (h < 24) return h + ' h' + (m % 60 ? ' ' + (m % 60) + ' min' : '');
    return Math.floor(h / 24) + ' d' + (h % 24 ? ' ' + (h % 24) + ' h' : '');
  }

  function tick() {
    const now = Date.now() - clock;
    for (const t of document.querySelectorAll('time[data-rel]')) {
      const s = Math.round((now - Date.parse(t.dateTime)) / 1000);
      const future = t.textContent.startsWith('in ') || t.textContent === 'now';
      const text = future ? (s < 0 ? 'in ' + span(-s) : 'now') : (s > 0 ? span(s) + ' ago' : 'just now');
      if (t.textContent !== text) t.textContent = text;
    }
  }

  // local shows times in the zone of the reader, or in UTC when that is wanted; the
  // tooltip has them in UTC in any case.
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || 'UTC';
  let utc = false;
  try { utc = localStorage.getItem('utc') === '1'; } catch { /* cookies are off: in the zone of the reader */ }
  function local() {
    const now = new Date(Date.now() - clock), tz = utc ? 'UTC' : zone, day = { timeZone: tz, dateStyle: 'short' };
    for (const t of document.querySelectorAll('time:not([data-rel])')) {
      const at = new Date(t.dateTime);
      if (isNaN(at)) continue;
      let text = at.toLocaleTimeString('en-GB', { timeZone: tz });
      if (t.closest('footer') || at.toLocaleDateString('en', day) !== now.toLocaleDateString('en', day)) {
        const there = at.getFullYear() === now.getFullYear() ? {} : { year: 'numeric' };
        text = at.toLocaleDateString('en', { timeZone: tz, month: 'short', day: 'numeric', ...there }) + ' ' + text;
      }
      if (utc) text += 'Z';
      if (t.textContent !== text) t.textContent = text;
    }
    for (const t of document.querySelectorAll('[data-hm]')) {
      const at = new Date(t.dataset.hm);
      const text = t.dataset.far ? at.toLocaleDateString('en', { timeZone: tz, month: 'short', day: 'numeric' })
        : at.toLocaleTimeString('en-GB', { timeZone: tz, hour: '2-digit', minute: '2-digit' });
      if (t.textContent !== text) t.textContent = text;
    }
    const said = document.getElementById('zone');
    if (!said || zone === 'UTC') return;
    said.textContent = 'all times are ' + tz + ' ';
    const other = document.createElement('button');
    other.className = 'link';
    other.textContent = utc ? 'show ' + zone : 'show UTC';
    other.onclick = () => {
      utc = !utc;
      try { localStorage.setItem('utc', utc ? '1' : '0'); } catch { /* for this page only */ }
      local();
    };
    said.append(other);
  }

  // morph makes a like b and leaves every node alone that stays: so focus,
  // selection, what is typed, ticked or unfolded, all stay. Rows have ids and
  // never change their order; they come and go.
  function morph(a, b) {
    if (a.isEqualNode(b)) return;
    if (a.nodeType !== Node.ELEMENT_NODE) {
      if (a.nodeValue !== b.nodeValue) a.nodeValue = b.nodeValue;
      return;
    }
    for (const { name } of [...a.attributes]) {
      if (!b.hasAttribute(name) && !(name === 'open' && a.localName === 'details')) a.removeAttribute(name);
    }
    for (const { name, value } of b.attributes) if (a.getAttribute(name) !== value) a.setAttribute(name, value);
    const ids = new Set([...b.children].map((c) => c.id).filter(Boolean));
    let at = a.firstChild;
    const skip = () => {
      while (at && at.id && !ids.has(at.id)) {
        const gone = at;
        at = at.nextSibling;
        gone.remove();
      }
    };
    for (const want of [...b.childNodes]) {
      skip();
      if (at && at.nodeType === want.nodeType && at.nodeName === want.nodeName && (at.id || '') === (want.id || '')) {
        const here = at;
        at = at.nextSibling;
        morph(here, want);
      } else {
        a.insertBefore(document.importNode(want, true), at);
      }
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  }

  // still runs change and keeps what one looks at where it is on the screen:
  // what has the focus, else the first row in sight, else the first part.
  function still(change) {
    const seen = (e) => {
      const top = e.getBoundingClientRect().top;
      return top >= 0 && top < window.innerHeight;
    };
    let anchor = null;
    if (window.scrollY > 0) {
      const focused = document.activeElement;
      if (focused && focused.closest('main') && focused.id !== 'main' && seen(focused)) anchor = focused;
      else anchor = [...document.querySelectorAll('tr[id]'), ...document.querySelectorAll('.card')].find(seen) || null;
    }
    const before = anchor && anchor.getBoundingClientRect().top;
    change();
    if (anchor && anchor.isConnected) {
      const by = anchor.getBoundingClientRect().top - before;
      if (by) window.scrollBy({ top: by, behavior: 'instant' });
    }
  }

  let busy = false, out = false;
  async function refresh() {
    if (busy || out) return;
    busy = true;
    try {
      const r = await fetch(location.href, { cache: 'no-store', headers: { 'If-None-Match': mark } });
      out = r.redirected && new URL(r.url).pathname === '/login';
      say(out ? 'logged out: load the page again' : 'live', out);
      if (out || !(r.headers.get('Content-Type') || '').startsWith('text/html')) return;
      const page = new DOMParser().parseFromString(await r.text(), 'text/html');
      still(() => {
        for (const part of document.querySelectorAll('[data-live]')) {
          const fresh = page.getElementById(part.id);
          if (fresh) morph(part, fresh);
        }
        const made = page.querySelector('footer time');
        if (made) {
          morph(document.querySelector('footer'), page.querySelector('footer'));
          clock = Date.now() - Date.parse(made.dateTime);
        }
        document.title = page.title;
        const icon = document.getElementById('icon'), other = page.getElementById('icon');
        if (other && icon.href !== other.href) icon.href = other.href;
        local();
        tick();
      });
      if (page.documentElement.dataset.mark) mark = page.documentElement.dataset.mark;
    } catch {
      say('no connection to the service', true);
    } finally {
      busy = false;
    }
  }

  // The box beside the buttons ticks those of all rows shown.
  document.addEventListener('change', ({ target }) => {
    if (target.id !== 'all') return;
    for (const box of target.form.querySelectorAll('input[name=id]')) box.checked = target.checked;
  });
  document.addEventListener('visibilitychange', () => { if (!document.hidden) refresh(); });
  setInterval(refresh, 2000);
  setInterval(tick, 1000);
  local();
  refresh();
})();
