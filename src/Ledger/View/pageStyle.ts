/**
 * pageStyle: the style of the page. System fonts; one colour for each state, and never colour alone; light or dark as the
 * reader's system is. The name has the width that the other columns leave, at least 150 px: the owner column shrinks first,
 * then disappears. Below 720 px each row of the table becomes a card.
 */

export const style = `
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--ink:#1b2029;--soft:#5a6473;--line:#e2e5ea;--hair:#edeff2;--hover:#f0f4fa;--accent:#2f6db5;--mark:#fff6dc;
--acquiring:#a86500;--held:#2f6db5;--releasing:#0b7f74;--released:#6a7482;--failed:#c0390b;--abandoned:#8f2d86;--load:#d5e3f4;--row:32px;--pad:24px;
--mono:ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media(prefers-color-scheme:dark){:root{--bg:#0e1217;--card:#151a21;--ink:#e3e7ed;--soft:#98a3b2;--line:#29313c;--hair:#1f262f;--hover:#1b232e;--accent:#7db2f0;--mark:#3a3115;
--acquiring:#e3a93c;--held:#6ca6ee;--releasing:#45c2b2;--released:#8a95a4;--failed:#ff8660;--abandoned:#e08ad8;--load:#1f3450}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scrollbar-gutter:stable}
body{margin:0;background:var(--bg);color:var(--ink);font:13px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;font-variant-numeric:tabular-nums}
h1,h2,h3,p,ol,ul,dl,dd,pre{margin:0;padding:0}
ol,ul{list-style:none}
button,input{font:inherit;color:inherit}
button{background:none;border:0;padding:0;text-align:inherit;cursor:pointer}
:focus-visible{outline:2px solid var(--accent);outline-offset:1px;border-radius:4px}
.icon{width:14px;height:14px;flex:none;vertical-align:-2px}
.acquiring{color:var(--acquiring)}.held{color:var(--held)}.releasing{color:var(--releasing)}.released{color:var(--released)}.failed{color:var(--failed)}.abandoned,.deadlock{color:var(--abandoned)}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.soft{color:var(--soft)}
.mono{font-family:var(--mono);font-size:12px}
.link{color:var(--accent);text-decoration:underline;text-underline-offset:2px;text-decoration-color:color-mix(in srgb,currentColor 40%,transparent)}
.link:hover{text-decoration-color:currentColor}

header{padding:20px var(--pad) 0}
.eyebrow{display:flex;flex-wrap:wrap;gap:4px 16px;justify-content:space-between;color:var(--soft);font-size:12px}
.eyebrow b{font-weight:600;color:var(--ink)}
h1{display:flex;gap:10px;align-items:flex-start;font-size:21px;line-height:1.3;font-weight:650;letter-spacing:-.01em;margin:6px 0 16px}
h1 .icon{width:20px;height:20px;margin-top:4px}
.stats{display:grid;grid-template-columns:repeat(7,minmax(0,1fr));background:var(--card);border:1px solid var(--line);border-radius:8px}
.stats div{display:flex;flex-direction:column-reverse;justify-content:flex-end;padding:10px 16px 9px;border-left:1px solid var(--hair)}
.stats div:first-child{border-left:0}
.stats dd{font-size:19px;line-height:1.25;font-weight:600;letter-spacing:-.01em}
.stats dt{color:var(--soft);font-size:12px;line-height:1.25}
.stats .none dd{color:var(--soft);font-weight:400}

.pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(320px,420px);gap:16px;padding:16px var(--pad) 0;align-items:start}
.pair.calm{grid-template-columns:minmax(320px,420px) minmax(0,1fr)}
.scroll{max-height:360px;overflow:auto}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 16px}
h2{font-size:13px;font-weight:600;margin-bottom:8px}
.problems>li{padding:7px 0;border-top:1px solid var(--hair);display:grid;grid-template-columns:20px minmax(0,1fr)}
.problems>li:first-child{border-top:0;padding-top:0}
.problems>li:last-child{padding-bottom:0}
.problems>li>.icon{margin-top:3px}
.problems h3{font-size:13px;font-weight:600;overflow-wrap:anywhere}
.problems p{overflow-wrap:anywhere}
.which{font-weight:400;color:var(--soft);margin-left:10px}
.which .link{color:inherit}
.problems .cause{color:var(--soft);display:-webkit-box;-webkit-line-clamp:2;-webkit-box-orient:vertical;overflow:hidden}
.circle{margin-top:4px}
.circle li{padding:3px 0 3px 14px;border-left:2px solid color-mix(in srgb,var(--abandoned) 45%,transparent);overflow-wrap:anywhere}
.kinds{width:100%;border-collapse:collapse}
.kinds th{font-weight:400;color:var(--soft);text-align:right;padding:0 0 4px 8px;white-space:nowrap;font-size:12px}
.kinds th:first-child,.kinds td:first-child{text-align:left;padding-left:0;width:99%;overflow-wrap:anywhere}
.kinds td{text-align:right;padding:3px 0 3px 8px;border-top:1px solid var(--hair)}
.kinds .zero{color:var(--soft)}
.side{display:grid;gap:16px}
.oldest li{display:flex;gap:12px;justify-content:space-between;padding:3px 0;border-top:1px solid var(--hair);white-space:nowrap}
.oldest li:first-child{border-top:0}
.oldest .what{overflow:hidden;text-overflow:ellipsis}
.bad{color:var(--failed);font-weight:600}

.tools{position:sticky;top:0;z-index:3;background:var(--bg);padding:12px var(--pad) 10px;margin-top:4px;display:grid;gap:8px}
.find{display:flex;gap:12px;align-items:center}
.find input{flex:1;min-width:0;max-width:520px;height:34px;padding:0 10px;background:var(--card);border:1px solid var(--line);border-radius:6px}
.find input::placeholder{color:var(--soft);opacity:1}
.find output{color:var(--soft);white-space:nowrap}
.chips{display:flex;flex-wrap:wrap;gap:6px}
.chip{display:inline-flex;gap:6px;align-items:center;height:26px;padding:0 9px;border:1px solid var(--line);border-radius:13px;background:var(--card);white-space:nowrap;max-width:240px}
.chip span:first-of-type{overflow:hidden;text-overflow:ellipsis}
.chip .n{color:var(--soft)}
.chip:hover{border-color:var(--soft)}
.chip[aria-pressed=true]{background:var(--ink);border-color:var(--ink);color:var(--bg)}
.chip[aria-pressed=true] .icon,.chip[aria-pressed=true] .n{color:inherit}
.sets{display:flex;flex-wrap:wrap;gap:6px 20px}

.load{margin:0 var(--pad);background:var(--card);border:1px solid var(--line);border-bottom:0;border-radius:8px 8px 0 0;padding:10px 16px 8px}
.load .head{display:flex;flex-wrap:wrap;gap:4px 16px;align-items:center;margin-bottom:6px}
.load .head h2{margin:0}
.load .head .zoom{margin-left:auto;display:flex;gap:4px;align-items:center}
#window{margin-right:8px}
.zoom button{border:1px solid var(--line);border-radius:5px;height:24px;min-width:26px;padding:0 8px;text-align:center}
.zoom button:hover:enabled{border-color:var(--soft)}
.zoom button:disabled{color:var(--soft);opacity:.55;cursor:default}
.graph{position:relative;height:52px;cursor:crosshair;touch-action:pan-y;border-bottom:1px solid var(--line);user-select:none;-webkit-user-select:none}
.graph svg{display:block;width:100%;height:100%}
.graph .area{fill:var(--load);stroke:var(--held);stroke-width:1;vector-effect:non-scaling-stroke}
.graph .line{fill:none;stroke:var(--acquiring);stroke-width:1.25;stroke-dasharray:3 2;vector-effect:non-scaling-stroke}
.graph .brush{position:absolute;top:0;bottom:0;background:color-mix(in srgb,var(--accent) 14%,transparent);border:solid var(--accent);border-width:0 1.5px;pointer-events:none}
.marks{position:relative;height:17px;font-size:11px;color:var(--soft);overflow:hidden}
.marks span{position:absolute;top:2px;transform:translateX(-50%);white-space:nowrap}
.marks span.first{transform:none}

.sheet{margin:0 var(--pad) var(--pad);background:var(--card);border:1px solid var(--line);border-radius:0 0 8px 8px}
.entries{overflow-anchor:none;width:100%;border-collapse:separate;border-spacing:0;table-layout:fixed}
.entries thead th{position:sticky;top:var(--tools,90px);z-index:2;background:var(--card);border-bottom:1px solid var(--line);padding:0;font-weight:400;text-align:left;vertical-align:bottom}
.entries thead button{display:flex;gap:4px;align-items:center;width:100%;height:30px;padding:0 10px;color:var(--soft);font-size:12px;white-space:nowrap}
.entries thead button:hover{color:var(--ink)}
.entries thead .num button{flex-direction:row-reverse;justify-content:flex-start}
.entries th[aria-sort=ascending] button,.entries th[aria-sort=descending] button{color:var(--ink);font-weight:600}
.arrow{width:8px;height:8px;flex:none;visibility:hidden}
[aria-sort=ascending] .arrow{visibility:visible}[aria-sort=descending] .arrow{visibility:visible;transform:rotate(180deg)}
.entries tbody td{height:var(--row);padding:0 10px;border-bottom:1px solid var(--hair);white-space:nowrap;overflow:hidden;text-overflow:ellipsis}
.entries tbody tr.pad td{height:0;padding:0;border:0}
.entries tbody tr:not(.pad):hover td{background:var(--hover)}
.entries tbody tr[aria-selected=true] td{background:color-mix(in srgb,var(--accent) 13%,var(--card))}
.entries tbody tr:not(.pad){cursor:pointer}
.num{text-align:right!important}
.c-state{width:116px}.c-kind{width:clamp(104px,9.5vw,136px)}.c-owner{width:clamp(76px,20vw - 140px,260px)}.c-fiber{width:68px}.c-num{width:82px}.c-time{width:21vw}
td.state .icon{margin-right:7px}
td.state span{color:var(--ink)}
.named{display:flex;align-items:baseline}.named button{flex:0 1 auto;min-width:0;overflow:hidden;text-overflow:ellipsis;font-weight:550}
.ends{display:flex}.ends span{white-space:pre}.ends span:first-child{min-width:1.7em;overflow:hidden;text-overflow:ellipsis}.ends span:last-child{flex:none}
.ownerless .c-owner,.ownerless .owner{display:none!important}
.named .at{flex:none;max-width:48%;overflow:hidden;text-overflow:ellipsis;direction:rtl;color:var(--soft);margin-left:8px;font-size:12px}
td.owner{color:var(--soft)}
.path{display:flex}.path .outer,.path .last{overflow:hidden;text-overflow:ellipsis;white-space:pre}.path .outer{flex:0 9 auto;min-width:0}.path .sep{flex:none;margin-right:5px}.path .last{flex:0 1 auto;min-width:0;max-width:100%;color:var(--ink)}
td.none{color:var(--soft)}
.lane{position:relative;height:100%;overflow:hidden;background:linear-gradient(to right,var(--hair) 1px,transparent 1px) var(--offset,0) 0/var(--step,80px) 100% repeat-x}
.entries td.time{padding:0 14px 0 10px;overflow:visible}
.entries th.time .marks{margin:0 14px 0 10px}
.lane i{position:absolute;top:50%;min-width:2px;transform:translateY(-50%)}
.lane .s-acquiring{height:6px;background:repeating-linear-gradient(115deg,var(--acquiring) 0 1.5px,transparent 1.5px 4px);box-shadow:inset 0 0 0 1px var(--acquiring)}
.lane .s-held{height:12px;background:var(--held);border-radius:2px}
.lane .s-releasing{height:10px;background:repeating-linear-gradient(to right,var(--releasing) 0 2px,transparent 2px 4px);box-shadow:inset 0 0 0 1px var(--releasing)}
.lane .m{position:absolute;top:50%;width:12px;height:12px;transform:translate(-50%,-50%);paint-order:stroke}
.lane .m.halo{background:var(--card);border-radius:50%}
.lane .m.go{transform:translate(-100%,-50%)}
.empty{padding:36px 16px;text-align:center;color:var(--soft)}
.foot{padding:0 var(--pad) 28px;color:var(--soft);font-size:12px;display:flex;flex-wrap:wrap;gap:6px 20px}
.foot .key{display:inline-flex;gap:6px;align-items:center}
.foot .lane{width:22px;height:14px;background:none;display:inline-block}
.foot .lane i{width:22px}

.detail{position:fixed;z-index:5;top:0;right:0;bottom:0;width:min(440px,100vw);background:var(--card);border-left:1px solid var(--line);box-shadow:-12px 0 32px rgb(0 0 0/.12);overflow:auto;overscroll-behavior:contain;padding:16px 20px 24px}
.detail[hidden]{display:none}
.detail .top{display:flex;gap:12px;align-items:flex-start;justify-content:space-between;margin-bottom:14px}
.detail h2{font-size:16px;line-height:1.35;margin:2px 0 0;overflow-wrap:anywhere}
.detail .close{flex:none;border:1px solid var(--line);border-radius:6px;height:30px;padding:0 10px}
.detail .close:hover{border-color:var(--soft)}
.detail dl{display:grid;grid-template-columns:92px minmax(0,1fr);gap:6px 12px}
.detail dt{color:var(--soft)}
.detail dd{overflow-wrap:anywhere}
.detail dd .mono,.detail pre{white-space:pre-wrap;overflow-wrap:anywhere}
.detail pre{font-family:var(--mono);font-size:12px;background:var(--bg);border:1px solid var(--hair);border-radius:6px;padding:8px 10px;margin-top:4px;max-height:320px;overflow:auto}
.detail .wide{grid-column:1/-1}
.detail .lane{height:26px;margin:2px 0 10px;border-bottom:1px solid var(--line);background:none}

@media(max-width:1180px){.c-fiber,.fiber{display:none}}
@media(max-width:1000px){.pair,.pair.calm{grid-template-columns:minmax(0,1fr)}.c-owner,.owner{display:none}.c-kind{width:100px}}
@media(max-width:880px){.c-state{width:60px}.c-num{width:78px}.c-time{width:13vw}td.state span{display:none}}
@media(max-width:719px){
:root{--row:74px;--pad:12px}
body{font-size:14px}
header{padding-top:14px}
h1{font-size:19px;margin-bottom:12px}
.stats{grid-template-columns:repeat(4,minmax(0,1fr))}.stats div:nth-child(4n+1){border-left:0}.stats div:nth-child(n+5){border-top:1px solid var(--hair)}
.stats div{padding:8px 10px 7px}.stats dd{font-size:17px}.stats dt{font-size:11.5px}
.card{padding:12px}
.kinds{font-size:13px}
.tools{position:static;padding-bottom:12px}
.find{flex-wrap:wrap;gap:6px 12px}
.find input{flex:1 1 100%;max-width:none;height:42px;font-size:16px}
.sets{display:grid;gap:6px}
.chips{flex-wrap:nowrap;overflow-x:auto;margin:0 calc(-1*var(--pad));padding:2px var(--pad);scrollbar-width:none}
.chip{height:34px;border-radius:17px;padding:0 12px;flex:none}
.zoom button{height:34px;min-width:38px;white-space:nowrap}
#window{display:none}
#peak{order:3;flex-basis:100%;font-size:12.5px}
.entries,.entries tbody{display:block}
.entries colgroup{display:none}
.entries thead{display:block;position:sticky;top:0;z-index:2;background:var(--card);border-bottom:1px solid var(--line)}
.entries thead tr{display:flex;overflow-x:auto;scrollbar-width:none;padding-right:24px;-webkit-mask-image:linear-gradient(to right,#000 calc(100% - 36px),transparent);mask-image:linear-gradient(to right,#000 calc(100% - 36px),transparent)}
[aria-sort=none] .arrow{display:none}
.entries thead th{position:static;flex:none;border:0;width:auto}
.entries thead th .marks{display:none}
.entries thead button{height:42px;padding:0 9px;font-size:13px}
.fiber{display:none}
.entries thead th.owner,.entries thead th.fiber{display:block}
.entries tbody tr{display:grid;grid-template-columns:auto minmax(0,1fr) auto;grid-template-rows:22px 18px 16px;align-content:center;height:var(--row);padding:0 12px;border-bottom:1px solid var(--hair);column-gap:8px}
.entries tbody tr.pad{display:block;height:auto;padding:0;border:0}
.entries tbody tr:not(.pad) td{height:auto;padding:0;border:0;line-height:22px}
.entries tbody tr:not(.pad):hover td,.entries tbody tr[aria-selected=true] td{background:none}
.entries tbody tr[aria-selected=true]{background:color-mix(in srgb,var(--accent) 13%,var(--card))}
td.state{grid-area:1/1}td.state span{display:none}td.state .icon{margin:0}
td.name{grid-area:1/2}.named .at{display:none}
td.held-for{grid-area:1/3}
td.kind{grid-area:2/2;line-height:18px!important;color:var(--soft);font-size:12.5px}
td.kind .by{display:inline}
td.waited{grid-area:2/3;line-height:18px!important;color:var(--soft);font-size:12.5px}
td.time{grid-area:3/2/4/4}
.entries td.time{padding:0}
td.owner,td.fiber,td.release{display:none}
td.waited:not(.none)::before{content:"waited "}
.detail{top:auto;left:0;width:auto;max-height:82vh;border-left:0;border-top:1px solid var(--line);border-radius:14px 14px 0 0;box-shadow:0 -12px 32px rgb(0 0 0/.18);padding:14px 16px 28px}
.detail .close{height:40px;padding:0 14px}
.circle .mono{font-size:11.5px}
.problems>li{grid-template-columns:22px minmax(0,1fr)}
.which{display:block;margin:1px 0 0}
}
@media(min-width:720px){.by{display:none}}
@media(forced-colors:active){.lane i{forced-color-adjust:none}}
@media print{.tools,.detail{display:none}}
`.trim()
