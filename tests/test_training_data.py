"""Training pairs of real abstracts, their format on disk, judged triples, and the command."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steelyard.errors import InputError
from steelyard.indexer.reading.documents import documents_of
from steelyard.indexer.reading.readers import open_corpus
from steelyard.progress import SilentProgress
from steelyard.training.data.job import TrainingDataJob, make_training_data
from steelyard.training.data.judged import (
    read_beir,
    read_query_texts,
    read_tsv_triples,
    relevant_ids,
)
from steelyard.training.data.kinds import KINDS, pairs_of
from steelyard.training.data.near_duplicates import SeenTexts
from steelyard.training.data.pairs import PairCounts, PairSettings, make_pairs
from steelyard.training.data.triples import (
    BadLine,
    Passage,
    TrainingExample,
    load_examples,
    passages_by_id,
    read_examples,
    writing,
)
from steelyard.types import Document
from tests.conftest import SCIFACT, scifact_lines, write_jsonl


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """150 real abstracts."""
    folder = tmp_path_factory.mktemp("abstracts")
    return write_jsonl(folder / "corpus.jsonl", scifact_lines(150))


def pairs(path: Path, **changes: Any) -> tuple[list[TrainingExample], PairCounts]:
    counts = PairCounts()
    made = list(make_pairs(documents_of(open_corpus(path)), PairSettings(**changes), counts))
    return made, counts


def test_every_kind_is_what_it_says(corpus: Path) -> None:
    made, counts = pairs(corpus)
    documents = {line["_id"]: line for line in scifact_lines(150)}
    assert counts.documents == 150
    assert counts.rejected == 0
    assert counts.pairs["title"] == 150
    assert counts.pairs["sentence"] > 140
    assert counts.pairs["span"] > 140
    assert counts.pairs["definition"] > 5
    assert sum(counts.pairs.values()) == len(made)
    for pair in made:
        source, positive = documents[pair.positive.id], pair.positive
        body = " ".join(source["text"].split())
        if pair.kind == "title":
            assert pair.query == " ".join(source["title"].split())
            assert (positive.title, positive.text) == ("", source["text"])
        elif pair.kind == "sentence":
            assert pair.query in body
            assert positive.title == source["title"]
            rest = " ".join(positive.text.split())
            assert pair.query not in rest
            assert 0 <= len(body) - len(pair.query) - len(rest) <= 1
        else:
            assert positive.text == source["text"]
            term = pair.query.removeprefix("what is ")
            assert term in body
            if pair.kind == "span":
                assert 4 <= len(term.split()) <= 16


def test_the_seed_decides_and_the_order_does_not(corpus: Path, tmp_path: Path) -> None:
    lines = scifact_lines(150)
    random.Random(3).shuffle(lines)  # noqa: S311
    shuffled = write_jsonl(tmp_path / "corpus.jsonl", lines)
    first, _ = pairs(corpus, seed=1)
    assert pairs(corpus, seed=1)[0] == first
    other, _ = pairs(corpus, seed=2)
    assert [p.query for p in other if p.kind == "span"] != [
        p.query for p in first if p.kind == "span"
    ]
    again, counts = pairs(shuffled, seed=1)
    assert not counts.duplicate_queries
    assert set(again) == set(first)


@pytest.mark.parametrize(
    ("sentence", "term"),
    [
        (
            "Myelodysplastic syndromes (MDS) are the most common of these.",
            "Myelodysplastic syndromes",
        ),
        ("A steelyard is a balance with one heavy and one light arm.", "steelyard"),
        ("NF-κB refers to a family of transcription factors.", "NF-κB"),
        ("This is a randomised trial of aspirin.", None),
        ("The primary outcome is the rate of death.", None),
        ("Patients are randomised to one of two arms.", None),
    ],
)
def test_definitions(sentence: str, term: str | None) -> None:
    text = f"We say nothing here of any use. {sentence} Words follow, so that it is a body."
    found = [p.query for p in pairs_of(Document("1", text), ("definition",), 0)]
    assert [query.removeprefix("what is ") for query in found] == ([term] if term else [])


def test_short_and_bare_documents_give_nothing() -> None:
    for document in (
        Document("1", "", "Only a title, of some words"),
        Document("2", "Too short."),
        Document("3", "One. Two. Three."),
        Document("4", "   \n\t "),
    ):
        assert list(pairs_of(document, KINDS, 0)) == []


def test_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    lines = scifact_lines(20)
    exact = {**lines[0], "_id": "exact", "text": lines[0]["text"].upper() + " !"}
    words = lines[1]["text"].split()
    words[len(words) // 2] = "steelyard"
    near = {**lines[1], "_id": "near", "text": " ".join(words)}
    titled = {"_id": "titled", "title": lines[2]["title"], "text": lines[3]["text"][::-1]}
    path = write_jsonl(tmp_path / "corpus.jsonl", [*lines, exact, near, titled])
    made, counts = pairs(path)
    assert counts.duplicate_documents == {"exact": 1, "near": 1}
    assert counts.duplicate_queries.get("exact", 0) >= 1
    assert not {"exact", "near"} & {pair.positive.id for pair in made}
    titles = [p.positive.id for p in made if p.kind == "title"]
    assert "titled" not in titles
    assert len({p.query for p in made}) == len(made)
    _, loose = pairs(path, near=2.0)
    assert loose.duplicate_documents == {"exact": 1}


def test_different_abstracts_are_no_near_duplicates() -> None:
    seen = SeenTexts()
    assert {seen.add(f"{d['title']} {d['text']}") for d in scifact_lines(200)} == {""}


def test_a_bad_corpus_line_is_counted_and_loses_no_other(tmp_path: Path) -> None:
    good = [json.dumps(line).encode() for line in scifact_lines(5)]
    bad = [b"{broken", b'{"_id": "x"}', b'{"_id": "y", "text": "\xff"}', b"[]", good[0]]
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b"\n".join([*bad[:4], *good, bad[4]]))
    made, counts = pairs(path)
    assert (counts.documents, counts.rejected) == (5, 5)
    assert [one.line for one in counts.first_rejected] == [1, 2, 3, 4, 10]
    assert len({pair.positive.id for pair in made}) == 5


@pytest.mark.parametrize(
    "changes",
    [{"kinds": ("title", "poem")}, {"kinds": ("span", "span")}, {"seed": -1}, {"near": 0}],
)
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        PairSettings(**changes)


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
said = text.filter(lambda t: bool(t.strip()))
passage = st.builds(Passage, said, text, text.map(lambda t: t[:20]))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.builds(
            TrainingExample,
            said,
            passage,
            st.lists(passage, max_size=3).map(tuple),
            st.sampled_from(["", *KINDS]),
        ).filter(lambda e: all(n.content != e.positive.content for n in e.negatives)),
        max_size=4,
    ),
    st.sampled_from(["examples.jsonl", "examples.jsonl.gz"]),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, examples: list[TrainingExample], name: str
) -> None:
    path = tmp_path_factory.mktemp("round") / name
    with writing(path) as writer:
        for example in examples:
            writer.write(example)
    assert list(read_examples(path)) == examples


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=60),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(max_size=8),
                lambda inner: (
                    st.lists(inner, max_size=3)
                    | st.dictionaries(
                        st.sampled_from(["query", "positive", "negatives", "text", "id"]), inner
                    )
                ),
                max_leaves=8,
            ).map(lambda value: json.dumps(value).encode()),
        ),
        max_size=5,
    )
)
def test_any_bytes_are_told_by_line_and_lose_no_other(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    good = {"query": "q", "positive": {"text": "p"}}
    data = b"\n".join([*lines, json.dumps(good).encode()])
    path = tmp_path_factory.mktemp("hostile") / "examples.jsonl"
    path.write_bytes(data)
    found = list(read_examples(path))
    assert found[-1] == TrainingExample("q", Passage("p"))
    assert len(found) == sum(1 for line in data.split(b"\n") if line.strip())


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"query": " ", "positive": {"text": "a"}}, "empty query"),
        ({"query": 3, "positive": {"text": "a"}}, "query is not a string but int"),
        ({"query": "q"}, "missing positive"),
        ({"query": "q", "positive": {"text": " "}}, "positive is empty"),
        ({"query": "q", "positive": ["a"]}, "positive is neither an object nor an id but list"),
        ({"query": "q", "positive": {"text": ["a"]}}, "positive: text is not a string but list"),
        ({"query": "q", "positive": "7"}, "no document '7' in the corpus"),
        ({"query": "q", "positive": "1", "negatives": "1"}, "negatives is not a list but str"),
        ({"query": "q", "positive": "1", "negatives": [{"text": "b"}, "8"]}, "negative 2"),
        ({"query": "q", "positive": "1", "negatives": ["1"]}, "positive is also a negative"),
        ({"query": "q\0", "positive": "1"}, "query holds a NUL character"),
        ({"query": "\ud800", "positive": "1"}, "query holds a lone surrogate"),
    ],
)
def test_a_bad_line_says_why(tmp_path: Path, line: dict[str, Any], reason: str) -> None:
    documents = passages_by_id([Document("1", "one")])
    good = {"query": "q", "positive": "1", "negatives": [{"text": "b"}]}
    path = write_jsonl(tmp_path / "examples.jsonl", [good, line, good])
    examples, bad = load_examples(read_examples(path, documents), path)
    assert examples == [TrainingExample("q", Passage("one", "", "1"), (Passage("b"),))] * 2
    assert [(one.line, one.file) for one in bad] == [(2, "examples.jsonl")]
    assert reason in bad[0].reason


def test_no_good_line_is_an_error_that_shows_the_first(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "examples.jsonl", [{"query": "q", "positive": "7"}])
    with pytest.raises(InputError, match=r"1 bad lines: examples.jsonl, line 1: .* no corpus"):
        load_examples(read_examples(path), path)
    with pytest.raises(InputError, match="no training examples at"):
        list(read_examples(tmp_path / "none.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 9999)[:-9])
    with pytest.raises(InputError, match="cannot be read to its end"):
        list(read_examples(tmp_path / "cut.jsonl.gz"))


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    bad = TrainingExample("q", Passage("", " "))

    def write() -> None:
        with writing(path) as writer:
            writer.write(TrainingExample("q", Passage("p")))
            writer.write(bad)

    with pytest.raises(InputError, match=r"example 2, query 'q': positive is empty"):
        write()
    assert list(tmp_path.iterdir()) == []
    with (
        pytest.raises(InputError, match="no name for training examples"),
        writing(tmp_path / "examples.parquet"),
    ):
        pass


def test_negatives_by_id_are_read_with_their_corpus(tmp_path: Path) -> None:
    documents = [Document("1", "one"), Document("2", "two", "Second")]
    example = TrainingExample("q", Passage.of(documents[0]), (Passage.of(documents[1]),), "span")
    with writing(tmp_path / "e.jsonl", negatives_by_id=True) as writer:
        writer.write(example)
    assert json.loads((tmp_path / "e.jsonl").read_text())["negatives"] == ["2"]
    assert list(read_examples(tmp_path / "e.jsonl", passages_by_id(documents))) == [example]


def test_a_beir_folder_gives_its_train_split() -> None:
    examples, bad = load_examples(read_beir(SCIFACT), SCIFACT)
    assert bad == []
    assert len(examples) == 919
    # Of 809 judged claims two have the words of another: their positives go together.
    assert len(relevant_ids(examples)) == 807
    first = examples[0]
    assert first.query == "0-dimensional biomaterials lack inductive properties."
    assert (first.positive.id, first.kind) == ("31715818", "judged")
    with pytest.raises(InputError, match=r"dev\.tsv.*splits here: test, train"):
        list(read_beir(SCIFACT, "dev"))


def test_bad_judgements_are_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    write_jsonl(
        tmp_path / "corpus.jsonl", [{"_id": str(i), "text": f"text {i}"} for i in range(4)]
    )
    (tmp_path / "queries.jsonl").write_text(
        '{"_id": "a", "text": "first"}\n{"_id": "b", "text": ""}\n{broken\n', encoding="utf-8"
    )
    rows = ["query-id\tcorpus-id\tscore", "a\t0\t1", "a\t1\t0", "a\t9\t1", "b\t1\t1", "c\t1\t1"]
    rows += ["a\t2", "a\t2\tmuch", "a\t0\t1", "", "a\t3\t2"]
    (tmp_path / "qrels" / "train.tsv").write_text("\n".join(rows), encoding="utf-8")
    examples, bad = load_examples(read_beir(tmp_path), tmp_path)
    negative = (Passage("text 1", "", "1"),)
    assert [(e.query, e.positive.id, e.negatives) for e in examples] == [
        ("first", "0", negative),
        ("first", "3", negative),
    ]
    assert sorted((one.file, one.line) for one in bad) == [
        ("queries.jsonl", 2),
        ("queries.jsonl", 3),
        ("train.tsv", 4),
        ("train.tsv", 5),
        ("train.tsv", 6),
        ("train.tsv", 7),
        ("train.tsv", 8),
        ("train.tsv", 9),
    ]


def test_tsv_triples_as_texts_and_as_ids(tmp_path: Path) -> None:
    path = tmp_path / "triples.tsv"
    path.write_bytes(b"q\tp\tn\nq\tp\n\xff\tp\tn\nq\tp\tp\n\nr\ts\tt\tu\n")
    examples, bad = load_examples(read_tsv_triples(path), path)
    assert [(e.query, e.positive.text, [n.text for n in e.negatives]) for e in examples] == [
        ("q", "p", ["n"]),
        ("r", "s", ["t", "u"]),
    ]
    assert [(one.line, one.reason[:12]) for one in bad] == [
        (2, "2 fields bet"),
        (3, "not UTF-8 at"),
        (4, "the positive"),
    ]
    path.write_text("1\t10\t11\n2\t10\t11\n1\t10\t12\n", encoding="utf-8")
    documents = passages_by_id([Document("10", "ten"), Document("11", "eleven")])
    found = list(read_tsv_triples(path, queries={"1": "one"}, documents=documents))
    assert found == [
        TrainingExample("one", documents["10"], (documents["11"],), "judged"),
        BadLine(2, "no query '2'", "triples.tsv"),
        BadLine(3, "no document '12'", "triples.tsv"),
    ]


def test_a_corpus_without_pairs_leaves_no_file(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "corpus.jsonl", [{"_id": "1", "text": "Too short."}])
    with pytest.raises(InputError, match=r"1 documents of .* give no pair"):
        make_training_data(
            open_corpus(path), TrainingDataJob(), tmp_path / "out.jsonl", SilentProgress()
        )
    assert not (tmp_path / "out.jsonl").exists()


def test_held_out_queries_are_not_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "judged.jsonl"
    job = TrainingDataJob(PairSettings(()), judged="train", held_out="test", negatives="none")
    report = make_training_data(open_corpus(SCIFACT), job, out, SilentProgress())
    examples, _ = load_examples(read_examples(out), out)
    assert (report.examples, report.held_out) == ({"judged": len(examples)}, 919 - len(examples))
    test = {text.casefold() for text in read_query_texts(SCIFACT, "test")}
    assert len(test) == 300
    train = load_examples(read_beir(SCIFACT), SCIFACT)[0]
    assert len(test & {example.query.casefold() for example in train}) == 2
    assert not test & {example.query.casefold() for example in examples}
    # SciFact's claims come in variants ("increases", "decreases"): those are near duplicates.
    kept = {example.query for example in examples}
    dropped = {example.query for example in train} - kept
    assert 40 < len(dropped) < 120
    words = [set(re.findall(r"\w+", text)) for text in test]
    for query in dropped:
        own = set(re.findall(r"\w+", query.casefold()))
        assert max(len(own & other) / len(own | other) for other in words) > 0.65


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from steelyard.cli import main; main()", "train", "data"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_makes_the_same_file_again(corpus: Path, tmp_path: Path) -> None:
    first, second, report = tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "r.json"
    done = command(corpus.parent, "--out", first, "--json", report, "--per-query", 3)
    assert done.returncode == 0, done.stderr
    assert command(corpus.parent, "--out", second, "--per-query", 3).returncode == 0
    assert first.read_bytes() == second.read_bytes()
    examples, bad = load_examples(read_examples(first), first)
    assert bad == []
    assert all(len(example.negatives) == 3 for example in examples)
    said = json.loads(report.read_text())
    assert sum(said["examples"].values()) == len(examples)
    mining = said["mining"]
    assert mining["mined"] + mining["random"] == 3 * len(examples)
    assert said["settings"]["pairs"]["seed"] == 0
    assert f"{mining['false_negatives']:,} of {mining['candidates']:,} candidates" in done.stdout


def test_the_command_without_negatives_and_its_errors(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl.gz"
    assert command(corpus, "--out", out, "--negatives", "none", "--kinds", "title").returncode == 0
    examples, _ = load_examples(read_examples(out), out)
    assert {(e.kind, e.negatives) for e in examples} == {("title", ())}
    for arguments, message in (
        (["--kinds", "poem"], "kinds of pairs 'poem'"),
        (["--kinds", ""], "no kind of pairs and no judged split"),
        (["--judged", "train"], "is no BEIR folder"),
        (["--per-query", "9", "--depth", "3"], "9 negatives of 3 candidates"),
        (["--ratio", "1.5"], "ratio 1.5"),
    ):
        done = command(corpus, "--out", tmp_path / "b.jsonl", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "b.jsonl").exists()
