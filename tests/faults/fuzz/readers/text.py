"""Readers of raw text, and of what is predicted on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.faults.fuzz.damage import PACKED, compressed, flipped, json_damage, lines_damage
from tests.faults.fuzz.engine import Reader
from tests.faults.fuzz.readers.files import TEXT, consumed, file_of

LINES = '{"text": "Ada wrote code. So did Bo.", "id": 3}\n"a string"\n{"text": "x\\u00e9"}\n'


def read_text(path: Path) -> None:
    from spe_dist.data.build.reading import choose_reader
    from spe_dist.data.build.settings import BuildSettings
    from spe_dist.data.text.files import find_files, read_parts
    from spe_dist.data.text.lines import Skips

    reader, _ = choose_reader(find_files([str(path)]), BuildSettings(words="tokenizer"))
    skips = Skips()
    for part in read_parts([path], reader.break_at):
        consumed(reader.sentences(part, skips, Counter()))


def read_for_prediction(path: Path) -> None:
    from spe_dist.data.text.lines import Skips
    from spe_dist.extraction.predicting.inputs import read_inputs
    from spe_dist.extraction.predicting.text_input import InputSettings

    consumed(read_inputs([str(path)], InputSettings(skip_bad=len(path.read_bytes()) % 2 == 0), Skips()))


def columnar_readers() -> list[Reader]:
    """Tables by column, none where pyarrow is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        return []
    table = pyarrow.table({"text": ["Ada wrote code. So did Bo.", "x é"] * 20, "id": list(range(40))})
    parquet, arrow, stream = (pyarrow.BufferOutputStream() for _ in range(3))
    pyarrow.parquet.write_table(table, parquet)
    for sink, writer in ((arrow, pyarrow.ipc.new_file), (stream, pyarrow.ipc.new_stream)):
        with writer(sink, table.schema) as file:
            file.write_table(table)
    sinks = {"a.parquet": parquet, "a.arrow": arrow, "stream.arrow": stream}
    return [
        Reader(f"text, {name}", flipped, file_of(name, sink.getvalue().to_pybytes()), read_text)
        for name, sink in sinks.items()
    ]


def text_readers() -> list[Reader]:
    wiki = '<doc id="1" url="" title="A">\nA\n\nAda wrote code. She did.\n</doc>\n'
    readers = [
        Reader("plain text", lines_damage, file_of("a.txt", TEXT), read_text),
        Reader("text of WikiExtractor", lines_damage, file_of("a.txt", wiki), read_text),
        Reader("JSON lines of text", json_damage, file_of("a.jsonl", LINES), read_text),
        Reader("text to predict on", lines_damage, file_of("a.txt", TEXT), read_for_prediction),
    ]
    for suffix, (pack, unpack) in PACKED.items():
        damage, packed = compressed(pack, unpack, lines_damage), file_of(f"a.txt.{suffix}", pack(TEXT.encode()))
        readers.append(Reader(f"text, {suffix}", damage, packed, read_text))
    readers += columnar_readers()
    inputs = [
        {"tokens": ["Ada", "wrote", "code"], "id": 1},
        {"text": "Ada wrote code. So did Bo.", "doc_key": "x"},
        {"sentences": [["Ada", "wrote"], ["code"]], "text": "Ada wrote code"},
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in inputs)
    readers.append(Reader("JSON lines to predict on", json_damage, file_of("a.jsonl", lines), read_for_prediction))
    readers.append(
        Reader("JSON to predict on", json_damage, file_of("a.json", json.dumps(inputs)), read_for_prediction)
    )
    return readers
