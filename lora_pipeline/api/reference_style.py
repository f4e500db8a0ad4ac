"""How the page of `reference` looks."""

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d8dee6, #39424e); --soft: light-dark(#f5f7fa, #1b2027);
  --text: light-dark(#1c232c, #dde3ea); --back: light-dark(#fff, #12161b); --link: light-dark(#0b62c4, #76b3ff) }
* { box-sizing: border-box }
body { margin: 0; display: grid; grid-template-columns: 20rem minmax(0, 1fr); background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, sans-serif }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1.2rem; background: var(--soft);
  border-right: 1px solid var(--line); font-size: 13px }
nav a { display: block; padding: .15rem 0; color: inherit; text-decoration: none; overflow-wrap: anywhere }
nav a:hover { color: var(--link) }
nav .title { font-size: 17px; font-weight: 650 }
nav h3 { margin: 1.1rem 0 .3rem; text-transform: capitalize }
main { padding: 1.5rem 2.5rem 6rem; max-width: 62rem }
h2 { margin: 2.5rem 0 .5rem; padding-bottom: .3rem; border-bottom: 1px solid var(--line);
  text-transform: capitalize }
article { padding: .4rem 0 1.2rem; scroll-margin-top: 1rem }
article:target { outline: 2px solid var(--link); outline-offset: .6rem; border-radius: 4px }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem }
h4 { margin: .9rem 0 .3rem; font-size: .85rem }
small { font-weight: 400; opacity: .7 }
b[class] { display: inline-block; min-width: 3.4rem; padding: .05rem .4rem; border-radius: 4px; color: #fff;
  font: 600 11px/1.5 ui-monospace, monospace; text-align: center; text-transform: uppercase; background: #6b7684 }
b.get { background: #1667b8 } b.post { background: #1c7f4a } b.patch { background: #a15c07 }
nav b[class] { min-width: 2.9rem; font-size: 10px }
code, pre { font-family: ui-monospace, monospace; font-size: 13px }
pre { margin: .4rem 0; padding: .8rem; overflow-x: auto; background: var(--soft); border: 1px solid var(--line);
  border-radius: 6px }
table { width: 100%; border-collapse: collapse }
td { padding: .25rem .6rem .25rem 0; border-top: 1px solid var(--line); vertical-align: top }
td:first-child { width: 32%; overflow-wrap: anywhere } td:nth-child(2) { width: 24%; opacity: .8 }
details summary { margin-top: .6rem; cursor: pointer; color: var(--link); font-size: 13px }
a { color: var(--link) }
@media (max-width: 60rem) { body { display: block } nav { position: static; height: auto; max-height: 40vh;
  border: solid var(--line); border-width: 0 0 1px } main { padding: 1.2rem }
  tr { display: grid; grid-template-columns: 1fr 1fr }
  td:first-child, td:nth-child(2) { width: auto } td:nth-child(3) { grid-column: 1 / -1; border: 0; padding-top: 0 }
  td:nth-child(3):empty { display: none } }
"""
