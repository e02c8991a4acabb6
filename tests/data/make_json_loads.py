"""Writes json_loads.jsonl: JSON documents, and what Python's json.loads makes of their "origin".

Run it as `python3 make_json_loads.py > json_loads.jsonl`. Each line is [document, answer]. A
document is bytes, and stands here as the characters with the same numbers. An answer is one of

- "error": json.loads refuses the document;
- "not an object": it is JSON, but not an object;
- "missing", "null", "float", "list", "object", "surrogate": what its field "origin" is;
- ["key", text]: the text of a string, an integer or a boolean.

For example, `["{\\"origin\\": 17}", ["key", "17"]]` is a line. Documents that json.loads takes for
UTF-16 or UTF-32 are left out, because windrow refuses them.
"""

import json
import random
import sys

SEED = [
    b'{"timestamp": 1725184800.123456, "_id": "0af3", '
    b'"origin": "producer-0 (10.1.63.230)", "content": "Message #17"}',
    b'{"origin":"a","n":-0.5e-3,"ok":true,"no":false,"nil":null,'
    b'"list":[1,[2,{"origin":"x"}],"]"],"deep":{"origin":{}}}',
    b'{"origin": "\xc3\xa9\\u00e9\\ud83d\\ude00\\n\\"\\\\\\/", '
    b'"a": "\xf0\x9f\x98\x80", "\\u006frigin2": 1}',
    b' \t\r\n{ "x" : [ ] , "origin" : 17 , "y" : { } } \n',
    b'{"a": {"origin": "no"}, "origin": "first", "b": ["origin", "origin"], "origin": "last"}',
]
VALUES = r"""
"" "a" "a b" "\u0061" "\ud83d\ude00" "\ud83d" "\ude00" "\ude00\ud83d" "\ud83d\u0041" "\ud83dx\ude00"
"\u0000" "\x" "\u12" "\u12g4" "\u 123" "\U0041" "\'" "\/" "\b\f\n\r\t" "\\" "\" " "\\\" 'a' "a 0 -0
1 -1 00 01 -01 +1 1. .5 -.5 1.0 -0.0 0e0 1e2 1E+2 1e-2 1e 1e+ 1.e2 0x10 1_000 9007199254740993
-9223372036854775808 18446744073709551616 123456789012345678901234567890123456789 1e999 -1e999 true
false null True nul nulll tru NaN nan Infinity -Infinity +Infinity -NaN Inf - -- [] [1] [1,] [,] [1
2] [1}] {} {"a":1} {"a":1,} {"a"} {a:1} {"a":1]} {1:2} undefined
""".split()
BYTES = [
    b"", b" ", b"{", b"}", b"[", b"[]", b"1", b'"origin"', b"null", b"NaN", b"{}", b" { } ", b"{}x",
    b"{} {}", b"{},", b"{}\0", b"{\0}", b'{"origin":"a"', b'{"origin":"a', b'{"origin":',
    b'{"origin"', b'{"origi', b"{,}", b'{,"origin":"a"}', b'{"origin":"a",}',
    b'{"origin":"a" "b":1}', b'{"origin" "a"}', b'{"origin":"a":1}', b'["origin","a"]',
    b'\xef\xbb\xbf{"origin":"bom"}', b'\xef\xbb\xbf\xef\xbb\xbf{"origin":"two boms"}',
    b'{\xef\xbb\xbf"origin":"bom inside"}', b'{"origin":"\xef\xbb\xbfx"}', b'{"origin":"\xff"}',
    b'{"origin":"a","b":"\xff"}', b'{"origin":"\xc3"}', b'{"origin":"\xed\xa0\x80"}',
    b'{"origin":"a","b":"\xed\xa0\x80"}', b'{"origin":"a","b":"\xed\xa0\xbd\xed\xb8\x80"}',
    b'{"origin":"\xed\xa0\xbd\xed\xb8\x80"}', b'{"origin":"\\ud83d\xed\xb8\x80"}',
    b'{"origin":"a","\xed\xa0\x80":1}', b'{"origin":"\xc0\x80"}', b'{"origin":"\xf4\x90\x80\x80"}',
    b'{"origin":"\xe2\x80\xa8\x7f"}', b'{"origin":"a\x1fb"}', b'{"origin":"a\nb"}',
    b'{"origin":"a","b":"\t"}', b'{"origin\\u0000":"b","origin":"a"}',
    b'{"\\u006frigin":"escaped name"}', b'{"origin":"a","\\u006frigin":"b"}',
    b'{"\\u006frigin":"a","origin":"b"}', b'{"origin":"a","origin":null}',
    b'{"origin":null,"origin":"a"}', b'{"origin":"a","origin":{"origin":"b"}}', b'{"ORIGIN":"a"}',
    b'{"origin ":"a"}', b'{"origin":"a","x":{"origin":"b"}}', b'{"\xc3\xb6rigin":"a"}',
    b'{"origin":"a"}\xc2\xa0', b'\x0b{"origin":"a"}', b'{"origin":"a"} // x', b'{"origin":"a"/**/}',
    b'{"\\ud83d":1,"origin":"a"}', b'{"origin":"a","b":"\\ud83d"}',
    b'{"origin":' + b"[" * 900 + b"]" * 900 + b"}",
    b'{"origin":' + b'{"a":' * 900 + b"1" + b"}" * 901, b'{"origin":' + b"7" * 4300 + b"}",
    b'{"origin":-' + b"7" * 4300 + b"}", b'{"origin":' + b"7" * 4301 + b"}",
    b'{"origin":"a","b":' + b"7" * 4301 + b"}", b'{"origin":"a","b":' + b"7" * 4301 + b".0}",
]


def answer(document):
    """What json.loads makes of the field "origin"."""
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        return "error"
    if not isinstance(value, dict):
        return "not an object"
    if "origin" not in value:
        return "missing"
    origin = value["origin"]
    if origin is None:
        return "null"
    if isinstance(origin, str):
        try:
            origin.encode()
        except UnicodeEncodeError:
            return "surrogate"
        return ["key", origin]
    if isinstance(origin, (bool, int)):
        return ["key", str(origin).lower()]
    return type(origin).__name__.replace("dict", "object")


def mutants(count):
    """Draws documents of SEED with some pieces replaced, the same ones every time."""
    dice = random.Random(1)
    parts = [
        b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\n", b"0", b"1", b"-", b".", b"e",
        b"\0", b"\x1f", b"\x80", b"\xed\xa0\x80", b"\xc3\xa9", b"\\u", b"\\ud83d", b"\\ude00",
        b'"origin"', b'"origin":', b"NaN", b"null", b"true",
    ]
    for _ in range(count):
        document = bytearray(dice.choice(SEED))
        for _ in range(dice.choice([1, 1, 1, 2, 3, 8])):
            at = dice.randrange(len(document) + 1)
            to = min(len(document), at + dice.choice([0, 0, 1, 1, 2, 5, 30]))
            start = dice.randrange(len(document) + 1)
            copy = bytes(document[start:start + 9])
            piece = dice.choice([b"", dice.choice(parts), dice.choice(parts), copy])
            document[at:to] = piece
        yield bytes(document)


def main():
    documents = SEED + BYTES
    for value in VALUES:
        value = value.encode()
        documents += [
            value,
            b'{"origin":' + value + b"}",
            b'{"origin": "a", "b": ' + value + b" }",
            b'{"b":[' + value + b'],"origin":"a"}',
        ]
    documents += mutants(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
    for document in dict.fromkeys(documents):
        if json.detect_encoding(document) in ("utf-8", "utf-8-sig"):
            print(json.dumps([document.decode("latin-1"), answer(document)]))


main()
