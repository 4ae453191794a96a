"""What hostile text looks like.

No payload holds an empty line or a backtick: those rightly change a page's elements.
"""

HOSTILE = {
    "script": "<script>document.title='owned'</script>",
    "handler": "<img src=x onerror=\"document.title='owned'\">",
    "attribute": '" onmouseover="document.title=1" x="',
    "single-quote": "' onfocus='document.title=1' autofocus='",
    "style-end": "</style><style>*{display:none}</style>",
    "title-end": "</title><script>document.title='owned'</script>",
    "svg-end": "</title></text></svg><svg onload=\"document.title='owned'\">",
    "details-end": "</details></section></main><iframe srcdoc='x'>",
    "comment": "<!-- --><![CDATA[ ]]>",
    "template": "{{ 7 * 7 }}{% for a in b %}",
    "entity": "&lt;script&gt;&#x202e;",
    "url": "javascript:document.title='owned'",
    "console-markup": "[bold red]x[/bold red][link=file:///]y[/link][/]",
    "ansi": "\x1b[31m\x1b]0;owned\x07\x1b[2J\x9b31m",
    "bidi": "\u202egpj.exe\u2066\u2069\u200f\u061c",
    "nul": "\x00\x01\x08\x7f",
    "invisible": "\u200b\u2060\ufeff\U000e0041\u00ad",
    "separators": "\u2028\u2029\r",
    "surrogate": "\ud800",
}

FORBIDDEN = [
    *(chr(point) for point in range(0x20) if chr(point) not in "\n\t"),
    *(chr(point) for point in range(0x7F, 0xA0)),
    *"\u061c\u200b\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\ud800",
    "\U000e0041",
]
"""Characters that no renderer may let through."""
