"""Every kind of file that the program reads, with sound examples and the function that reads it."""

from __future__ import annotations

import json
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from annotation_tools import DOCCANO, LABEL_STUDIO, PRODIGY, PUBTATOR
from corpora import CONLL, DOCRED, EXAMPLES, MULTIHEAD, TRIPLES

from tests.faults.fuzz.damage import PACKED, compressed, flipped, json_damage, lines_damage
from tests.faults.fuzz.engine import Reader

TEXT = "Ada Lovelace wrote code. She lived in London, by the Thames.\n\nZürich is big, “yes”.\n" * 3
LINES = '{"text": "Ada wrote code. So did Bo.", "id": 3}\n"a string"\n{"text": "x\\u00e9"}\n'
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghij", *(f"##{c}" for c in "abcdefghij")]
YAML = "model:\n  layers: 2\n  cnn_kernels: [2, 3]\ntrain:\n  steps: 10\n  output: runs/x\nlearning_rate: 1e-4\n"
DEEPSPEED = {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}, "fp16": {"enabled": "auto"}}
METRICS = '{"step": 1, "kind": "train", "loss": 2.5}\n{"step": 2, "kind": "evaluation", "held_out/x": null}\n'
SCORES = {
    "finished": True,
    "best_epoch": 3,
    "epochs": 4,
    "dev": {m: {"f1": 0.5} for m in ("entity", "relation", "ent_rel")},
    "test": None,
}


def consumed(items: Iterable[Any]) -> None:
    deque(items, maxlen=0)


def file_of(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return prepare


def copy_of(made: Path, name: str) -> Callable[[Path], Path]:
    """A copy of a folder, in which the file `name` is damaged."""

    def prepare(folder: Path) -> Path:
        shutil.copytree(made, folder, dirs_exist_ok=True)
        (folder / "SHA256SUMS").unlink(missing_ok=True) if name != "SHA256SUMS" else None
        return folder / name

    return prepare


# Text, corpora, what is predicted on


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


def read_corpus_whole(path: Path) -> None:
    from spe_dist.extraction.corpora.statistics import count_corpus
    from spe_dist.extraction.formats import read_corpus, write_corpus

    corpus = read_corpus(path)
    count_corpus(corpus)
    write_corpus(corpus, path.with_name("written.json"), corpus.format)


def read_annotations(path: Path) -> None:
    from spe_dist.extraction.annotations.settings import AnnotationSettings
    from spe_dist.extraction.corpora.statistics import count_corpus
    from spe_dist.extraction.formats import read_corpus, write_corpus

    nearest = len(path.read_bytes()) % 2
    settings = AnnotationSettings("drop", "nearest") if nearest else AnnotationSettings("widen", "all")
    corpus = read_corpus(path, settings=settings)
    count_corpus(corpus)
    write_corpus(corpus, path.with_name("written.json"), "plain" if nearest else "dygie")


def brat_folder(folder: Path) -> Path:
    file_of("a.txt", TEXT)(folder)
    entities = "T1\tP 0 12\tAda Lovelace\nT2\tW 19 23\tcode\nT3\tX 0 3;19 23\tAda code\n"
    further = "E1\tw:T2\nA1\tx T1\n#1\tNote T1\thm\n*\tEquiv T1 T2\n"
    return file_of("a.ann", f"{entities}R1\tr Arg1:T1 Arg2:T2\n{further}")(folder)


def annotation_readers() -> list[Reader]:
    """Exports of annotation tools, and texts by character."""
    plain = {"text": TEXT, "entities": [[0, 3, "P"], {"pieces": [[4, 9], [19, 23]], "type": "W", "id": "w"}]}
    plain |= {"relations": [{"head": 0, "tail": "w", "type": "r"}], "word_offsets": [[0, 3], [4, 12]]}
    found = {"text": "Ada left.", "words": ["Ada", "left", "."], "word_offsets": [[0, 3], [4, 8], [8, 9]]}
    found |= {"file": "a.txt", "line": 1, "start": 0, "end": 9, "relations": [{"type": "r", "head": 0, "tail": 0}]}
    found |= {"entities": [{"type": "P", "start": 0, "end": 3, "probability": 0.5}]}
    records: dict[str, list[dict[str, Any]]] = {"plain": [plain] * 2, "predicted": [found] * 2}
    records |= {"doccano": [DOCCANO] * 2, "label_studio": [LABEL_STUDIO], "prodigy": [PRODIGY] * 2}
    exports = {name: "".join(f"{json.dumps(record)}\n" for record in listed) for name, listed in records.items()}
    readers = [
        Reader(f"annotations, {name}", json_damage, file_of("a.json", lines), read_annotations)
        for name, lines in exports.items()
    ]
    readers.append(Reader("annotations, brat", lines_damage, brat_folder, read_annotations))
    return [*readers, Reader("annotations, pubtator", lines_damage, file_of("a.txt", PUBTATOR), read_annotations)]


def word_format_readers() -> list[Reader]:
    """Corpora of columns, of entities with several mentions, and of entities named by their text."""
    ordinary = {**EXAMPLES["nyt"], "sentText": "Ada Lovelace, (they say) wrote code."}
    records = {"docred": DOCRED, "triples": TRIPLES, "nyt of ordinary text": ordinary}
    readers = [
        Reader(f"corpus, {name}", json_damage, file_of("a.json", f"{json.dumps(record)}\n" * 2), read_annotations)
        for name, record in records.items()
    ]
    for name, columns in (("conll", CONLL), ("multihead", MULTIHEAD)):
        readers.append(Reader(f"corpus, {name}", lines_damage, file_of("a.txt", columns * 2), read_annotations))
    return readers


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
    for name, record in EXAMPLES.items():
        lines = f"{json.dumps(record)}\n{json.dumps(record)}\n"
        readers.append(Reader(f"corpus, {name}", json_damage, file_of("a.json", lines), read_corpus_whole))
    listed = json.dumps([EXAMPLES["spert"], EXAMPLES["spert"]], indent=1)
    readers.append(Reader("corpus, one list", json_damage, file_of("a.json", listed), read_corpus_whole))
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
    return readers + annotation_readers() + word_format_readers()


# Shards


def read_shards(path: Path) -> None:
    from spe_dist.data.shards.store import ShardStore

    folder = path.parent
    store = ShardStore.open(str(folder))
    for index in range(min(len(store.block_sentences), 8)):
        store.block(index)
    store.check_files()


def verify_shards(path: Path) -> None:
    from spe_dist.data.shards.store import ShardStore

    str(ShardStore.open(str(path.parent)).verify())


def read_block(path: Path) -> None:
    from spe_dist.data.shards.blocks import Block

    Block.from_bytes(path.read_bytes()).problem(500, 200)


def shard_readers(shards: Path, old_shards: Path) -> list[Reader]:
    from spe_dist.data.shards.store import ShardStore

    block = ShardStore.open(str(shards)).block(4).to_bytes()
    return [
        Reader("manifest", json_damage, copy_of(shards, "manifest.json"), read_shards),
        Reader("manifest of before", json_damage, copy_of(old_shards, "manifest.json"), read_shards),
        Reader("index of blocks", flipped, copy_of(shards, "blocks.npy"), read_shards),
        Reader("shard", flipped, copy_of(shards, "train-00001.tar"), read_shards),
        Reader("shard, verified", flipped, copy_of(shards, "held_out-00000.tar"), verify_shards),
        Reader("block", flipped, file_of("block.npz", block), read_block),
    ]


# Settings


def read_settings(path: Path) -> None:
    from spe_dist.config.finetuning import FinetuneConfig
    from spe_dist.config.loading import load_config
    from spe_dist.config.pretraining import Config

    load_config(preset=None, yaml_file=str(path), given={}, config_class=Config)
    if path.stat().st_size % 3 == 0:
        load_config(preset=None, yaml_file=str(path), given={}, config_class=FinetuneConfig)


def read_deepspeed(path: Path) -> None:
    from spe_dist.config.pretraining import Config
    from spe_dist.distributed.deepspeed_config import (
        BatchPlan,
        choose_precision,
        complete,
        fit_to_model,
        load_deepspeed_config,
    )

    content = load_deepspeed_config(str(path))
    precision = choose_precision(Config(), content, "cpu")
    fit_to_model(complete(content, Config(), BatchPlan(256, 2, 4, 32), precision), 1000)


def read_experiment_file(path: Path) -> None:
    from spe_dist.experiments.file import read_experiment
    from spe_dist.experiments.plan import make_plan

    make_plan(read_experiment(path), lenient=True)


def setting_readers() -> list[Reader]:
    import spe_dist.experiments

    demo = (Path(spe_dist.experiments.__file__).parent / "files" / "demo.yaml").read_text(encoding="utf-8")
    return [
        Reader("settings", lines_damage, file_of("config.yaml", YAML), read_settings),
        Reader("experiment", lines_damage, file_of("experiment.yaml", demo), read_experiment_file),
        Reader("DeepSpeed config", json_damage, file_of("ds.json", json.dumps(DEEPSPEED)), read_deepspeed),
    ]


# Models


def read_extractor(path: Path) -> None:
    from spe_dist.extraction.joint.folder import load_extractor

    load_extractor(path.parent)


def read_export(path: Path) -> None:
    from spe_dist.export import SpanPairEncoder

    SpanPairEncoder.from_pretrained(path.parent)


def read_encoder(path: Path) -> None:
    from spe_dist.config.pretraining import ModelConfig
    from spe_dist.model.loading import load_encoder

    load_encoder(str(path.parent), ModelConfig(), 10, 0)


def read_tokenizer(path: Path) -> None:
    from spe_dist.data.text.vocabulary import PieceEncoder, load_tokenizer, vocabulary_sha256

    tokenizer = load_tokenizer(path.parent if path.suffix == ".json" else path)
    vocabulary_sha256(tokenizer)
    PieceEncoder(tokenizer).pieces(["abc", "xyz", ""])


def read_predecessor(path: Path) -> None:
    from spe_dist.export.pspe import read_pspe

    read_pspe(path, attention_heads=4)


def model_readers(extractor: Path, predecessor: Path) -> list[Reader]:
    readers = [
        Reader(f"fine-tuned model, {name}", damage, copy_of(extractor, name), read_extractor)
        for name, damage in (
            ("extractor.json", json_damage),
            ("spe_config.json", json_damage),
            ("labels.json", json_damage),
            ("config.json", json_damage),
            ("SHA256SUMS", lines_damage),
            ("extractor_heads.safetensors", flipped),
        )
    ]
    readers += [
        Reader("export, model.safetensors", _head_flipped, copy_of(extractor, "model.safetensors"), read_export),
        Reader("export, spe_config.json", json_damage, copy_of(extractor, "spe_config.json"), read_export),
        Reader("encoder, config.json", json_damage, _plain_bert(extractor, "config.json"), read_encoder),
        Reader("encoder, weights", _head_flipped, _plain_bert(extractor, "model.safetensors"), read_encoder),
        Reader("encoder, pickled weights", flipped, _pickled_bert(extractor), read_encoder),
        Reader("vocab.txt", lines_damage, file_of("vocab.txt", "\n".join(WORDS) + "\n"), read_tokenizer),
        Reader(
            "predecessor's checkpoint", flipped, lambda folder: Path(shutil.copy(predecessor, folder)), read_predecessor
        ),
    ]
    for name in ("tokenizer.json", "tokenizer_config.json"):
        readers.append(Reader(name, json_damage, copy_of(extractor, name), read_tokenizer))
    return readers


def _head_flipped(data: bytes, rng: Any) -> bytes:
    """Damage to the header of a safetensors file as often as to its numbers."""
    head = 8 + int.from_bytes(data[:8], "little")
    return flipped(data, rng) if rng.random() < 0.3 else flipped(data[:head], rng) + data[head:]


def _plain_bert(extractor: Path, name: str) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        for file in ("config.json", "model.safetensors"):
            shutil.copy(extractor / file, folder / file)
        return folder / name

    return prepare


def _pickled_bert(extractor: Path) -> Callable[[Path], Path]:
    def prepare(folder: Path) -> Path:
        import torch
        from safetensors.torch import load_file

        shutil.copy(extractor / "config.json", folder / "config.json")
        torch.save(load_file(extractor / "model.safetensors"), folder / "pytorch_model.bin")
        return folder / "pytorch_model.bin"

    return prepare


# What a run leaves


def read_metrics(path: Path) -> None:
    from spe_dist.training.curves import read_training
    from spe_dist.training.metrics import read_rows

    read_rows(path)
    read_training(path.parent)


def read_scores(path: Path) -> None:
    from spe_dist.finetuning.results import describe_finished, finished_scores

    document = finished_scores(path.parent)
    if document is not None:
        describe_finished(path.parent, document)


def read_piece(path: Path) -> None:
    from spe_dist.experiments.record import read_record

    read_record(path.parent)


def read_run_checkpoint(path: Path) -> None:
    """The checkpoint with a checksum of the damaged file that is right: what is in it must hold by itself."""
    from checkpoint_maker import write_state

    from spe_dist.export.checkpoint import read_checkpoint

    folder = next(parent for parent in path.parents if parent.name.startswith("step_"))
    if path.name != "state.json":
        write_state(folder)
    read_checkpoint(folder)


def checkpoint_readers(run: Path) -> list[Reader]:
    [step] = (run / "checkpoints").glob("step_*")
    files = [("state.json", json_damage), ("config.yaml", lines_damage), ("start/config.json", json_damage)]
    files += [(name.relative_to(step).as_posix(), json_damage) for name in step.rglob("index.json")]
    return [
        Reader(f"checkpoint, {name}", damage, copy_of(step.parent, f"{step.name}/{name}"), read_run_checkpoint)
        for name, damage in files
    ]


def run_readers() -> list[Reader]:
    piece = json.dumps({"state": "finished", "seconds": 1.5, "request": {"kind": "demo"}, "process": 3})
    return [
        Reader("metrics.jsonl", json_damage, file_of("metrics.jsonl", METRICS), read_metrics),
        Reader("scores.json", json_damage, file_of("scores.json", json.dumps(SCORES)), read_scores),
        Reader("piece.json", json_damage, file_of("piece.json", piece), read_piece),
    ]
