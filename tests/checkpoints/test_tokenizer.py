from __future__ import annotations

import json
import pickle
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from deeplayer_cli.checkpoints.tokenizer import FastTokenizer, SentencePieceTokenizer, Tokenizer
from deeplayer_cli.errors import DeeplayerError, RowError
from deeplayer_cli.models.internvl.prompt import IMAGE_CONTEXT, internvl2_5
from tests.checkpoints.tiny import SPECIAL, byte_level

if TYPE_CHECKING:
    from pathlib import Path

LITERALS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>"]
LITERALS += ["<box>", "</box>", "[UNUSED_TOKEN_0]", "[UNUSED_TOKEN_14]", "[UNUSED_TOKEN_145]", "<0x41>", "<REF>"]
FRAGMENTS = ["<", ">", "<<", "</", "ref>", "<re", "f>", "|>", "[UNUSED_TOKEN_", "1]", "\0", " ", "man"]
texts = st.lists(st.sampled_from(LITERALS + FRAGMENTS) | st.text(max_size=8), max_size=8).map("".join)
harmless_texts = st.text().filter(lambda text: "<" not in text and "[" not in text)


@pytest.fixture(scope="module")
def cases(reference_dir: Path) -> dict[str, Any]:
    return json.loads((reference_dir / "real_tokenizer" / "cases.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def internlm2(reference_dir: Path) -> SentencePieceTokenizer:
    return SentencePieceTokenizer.read(reference_dir / "real_tokenizer")


@pytest.fixture(scope="module")
def internlm2_forbidden(reference_dir: Path) -> set[int]:
    config = json.loads((reference_dir / "real_tokenizer" / "tokenizer_config.json").read_text(encoding="utf-8"))
    return {*map(int, config["added_tokens_decoder"]), *range(3), *range(92397, 92544)}


def lower_case_words() -> Backend:
    """The nastiest kind: whole words, and a normaliser that makes literals out of other text; adds a BOS."""
    backend = Backend(models.WordLevel({"<unk>": 0, "<ref>": 1, "man": 2, "<s>": 3}, unk_token="<unk>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 3)])
    return backend


def with_special_tokens(backend: Backend) -> FastTokenizer:
    backend.add_special_tokens([AddedToken(token, normalized=token == "<ref>", special=True) for token in SPECIAL])
    return FastTokenizer(backend)


def test_every_case_of_the_original(cases: dict[str, Any], internlm2: SentencePieceTokenizer) -> None:
    nul_as_byte = tuple(map(int, version("sentencepiece").split(".")[:3])) >= (0, 2, 3)
    for case in cases["encode"]:
        if nul_as_byte or "\0" not in case["text"]:
            assert internlm2.encode(case["text"]) == case["ids"]
            assert internlm2.encode_piece(case["text"]) == case["ids"][1:]
    for case in cases["decode"]:
        assert internlm2.decode(case["ids"]) == case["skip_special"]


def test_tokenizers_travel(internlm2: SentencePieceTokenizer) -> None:
    """To the process that compares on a cluster, from one of its workers."""
    for tokenizer in (internlm2, with_special_tokens(byte_level())):
        there = pickle.loads(pickle.dumps(tokenizer))
        for text in ("the man <ref> ", "<IMG_CONTEXT>"):
            assert there.encode(text) == tokenizer.encode(text)
            assert there.encode_expression(text) == tokenizer.encode_expression(text)


def test_every_prompt_of_the_original(cases: dict[str, Any], internlm2: SentencePieceTokenizer) -> None:
    prompt = internvl2_5()
    for case in cases["grounding_prompts"]:
        visual = IMAGE_CONTEXT * case["n_context"]
        whole = f"{prompt.before_image}{visual}{prompt.after_image}{case['expression']}{prompt.after_expression}"
        image_ids = [internlm2.token_id(IMAGE_CONTEXT)] * case["n_context"]
        expected = case["ids_before_context"] + image_ids + case["ids_after_context"]
        assert internlm2.encode(whole) == expected
        assert whole == case["prompt_with_image_placeholder"].replace("<image>", f"<img>{visual}</img>")
        after_image = internlm2.encode_piece(prompt.after_image) + internlm2.encode_expression(case["expression"])
        assert internlm2.encode(prompt.before_image) == case["ids_before_context"]
        assert after_image + internlm2.encode_piece(prompt.after_expression) == case["ids_after_context"]


def test_decoding_cleans_up_as_the_original(internlm2: SentencePieceTokenizer) -> None:
    assert internlm2.decode(internlm2.encode_piece("a , b do n't it 's")) == "a, b don't it's"


@given(text=texts)
def test_an_expression_stays_text(internlm2: SentencePieceTokenizer, internlm2_forbidden: set[int], text: str) -> None:
    ids = internlm2.encode_expression(text)
    assert internlm2_forbidden.isdisjoint(ids)
    assert internlm2._model.decode(ids) == text


@given(text=harmless_texts)
def test_an_ordinary_expression_is_encoded_as_ever(internlm2: SentencePieceTokenizer, text: str) -> None:
    assert internlm2.encode_expression(text) == internlm2.encode_piece(text) == internlm2.encode(text)[1:]


@pytest.mark.parametrize("text", ["<<ref>ref>", "<ref<ref>>", "<re<ref>f>", "[UNUSED_TOKEN_1[UNUSED_TOKEN_14]4]"])
def test_nested_literals(internlm2: SentencePieceTokenizer, internlm2_forbidden: set[int], text: str) -> None:
    assert not internlm2_forbidden.isdisjoint(internlm2.encode(text)[1:])
    assert internlm2_forbidden.isdisjoint(internlm2.encode_expression(text))


@pytest.fixture(scope="module", params=[byte_level, lower_case_words])
def fast(request: pytest.FixtureRequest) -> FastTokenizer:
    return with_special_tokens(request.param())


@given(text=texts)
def test_an_expression_stays_text_in_fast_tokenizers(fast: FastTokenizer, text: str) -> None:
    added = fast._backend.get_added_tokens_decoder()
    special = {id for id, token in added.items() if token.content != "<unk>"}
    assert special.isdisjoint(fast.encode_expression(text))


@given(text=harmless_texts)
def test_an_ordinary_expression_is_encoded_as_ever_by_fast_tokenizers(fast: FastTokenizer, text: str) -> None:
    assert fast.encode_expression(text) == fast.encode_piece(text)
    assert fast.encode("") + fast.encode_piece(text) == fast.encode(text)


def test_byte_level_text_survives() -> None:
    fast = with_special_tokens(byte_level())
    text = "the man <ref>, 小猫 🙂"
    assert fast.decode(fast.encode_expression(text)) == text
    assert fast.decode(fast.encode(f"<ref>{text}</ref>")) == text.replace("<ref>", "")


def test_a_literal_made_by_the_normaliser() -> None:
    fast = with_special_tokens(lower_case_words())
    assert fast.encode("<REF> man")[1:] == [1, 2]
    assert fast.encode_expression("<REF> man") == [0, 0, 2]


def test_a_lone_surrogate_costs_its_row(internlm2: Tokenizer) -> None:
    with pytest.raises(RowError, match="not valid Unicode"):
        internlm2.encode_expression("the \ud83d man")


def test_qwen2_files_without_a_tokenizer_json(tmp_path: Path) -> None:
    model = json.loads(byte_level().to_str())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    first = len(model["vocab"])
    added = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", IMAGE_CONTEXT, "<ref>", "</ref>"]
    (tmp_path / "added_tokens.json").write_text(json.dumps({token: first + i for i, token in enumerate(added)}))
    decoder = {str(first + i): {"content": token, "special": True} for i, token in enumerate(added)}
    config = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder, "add_bos_token": False}
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "pad_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = FastTokenizer.read(tmp_path)
    assert [tokenizer.token_id(token) for token in added] == list(range(first, first + len(added)))
    man = model["vocab"]["man"]
    assert tokenizer.encode("<ref>man</ref>") == [tokenizer.token_id("<ref>"), man, tokenizer.token_id("</ref>")]
    assert tokenizer.decode(tokenizer.encode("<ref>man</ref><|im_end|>")) == "man"
    assert tokenizer.token_id("<ref>") not in tokenizer.encode_expression("<ref>man</ref>")


def test_missing_token(internlm2: SentencePieceTokenizer) -> None:
    for tokenizer in (internlm2, with_special_tokens(byte_level())):
        with pytest.raises(DeeplayerError, match="has no '<nope>': it is not InternVL's"):
            tokenizer.token_id("<nope>")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("tokenizer.model", b"nonsense", r"cannot read .*tokenizer\.model"),
        ("tokenizer.model", None, r"cannot read .*tokenizer\.model"),
        ("tokenizer_config.json", b"{}", r"tokenizer_config\.json does not list its added tokens"),
        ("tokenizer_config.json", b'{"added_tokens_decoder": []}', "does not list its added tokens"),
    ],
)
def test_damaged_sentencepiece_folder(
    reference_dir: Path, tmp_path: Path, name: str, content: bytes | None, sentence: str
) -> None:
    for file in ("tokenizer.model", "tokenizer_config.json"):
        (tmp_path / file).write_bytes((reference_dir / "checkpoint" / file).read_bytes())
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DeeplayerError, match=sentence):
        SentencePieceTokenizer.read(tmp_path)


def test_damaged_fast_folder(tmp_path: Path) -> None:
    with pytest.raises(DeeplayerError, match=r"cannot read .*tokenizer\.json"):
        FastTokenizer.read(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(DeeplayerError, match=r"cannot read the tokenizer in .*"):
        FastTokenizer.read(tmp_path)
