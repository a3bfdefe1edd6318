"""A tokenizer that goes from a Hugging Face folder into GGUF and back is the same to transformers."""

import pytest

import needs
from gpt2lab.weights import convert, open_checkpoint
from gpt2lab.weights.checkpoint import tokenizer_of

transformers = needs.package("transformers")
tokenizers = needs.package("tokenizers")

TEXTS = ["Hello, world", "<|user|>Hi<|end|>", "a<|endoftext|>b", "a tool_call b", " tool_call", "ünïcode 日本 \n\n x"]
TEMPLATE = "{% for m in messages %}<|user|>{{ m.content }}<|end|>{% endfor %}"


@pytest.fixture
def folder(tmp_path):
    """Let transformers save a fine-tuned GPT-2: added tokens of both kinds, two ends, a template, padding."""

    def save(*, ends=("<|end|>", "<|endoftext|>"), before=False):
        alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: id for id, token in enumerate([*alphabet, "Ġw", "or", "<|endoftext|>"])}
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, [("Ġ", "w"), ("o", "r")]))
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        bpe.decoder = tokenizers.decoders.ByteLevel()
        if before:
            bpe.post_processor = tokenizers.processors.TemplateProcessing(
                single="<|endoftext|> $A",
                pair="<|endoftext|> $A <|endoftext|> $B:1",
                special_tokens=[("<|endoftext|>", vocabulary["<|endoftext|>"])],
            )
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token=ends[0], unk_token="<|endoftext|>"
        )
        tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|user|>", "<|end|>"]})
        tokenizer.add_tokens(["tool_call"])
        tokenizer.chat_template = TEMPLATE
        ids = tokenizer.convert_tokens_to_ids(list(ends))
        config = transformers.GPT2Config(vocab_size=len(tokenizer) + 3, n_positions=16, n_embd=32, n_layer=1, n_head=2)
        config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, ids[0]
        config.pad_token_id = tokenizer.pad_token_id
        model = transformers.GPT2LMHeadModel(config)
        model.generation_config.eos_token_id = ids if len(ids) > 1 else ids[0]
        model.save_pretrained(tmp_path / "hf")
        tokenizer.save_pretrained(tmp_path / "hf")
        return tmp_path / "hf"

    return save


def round_trip(folder):
    convert(open_checkpoint(folder), folder.parent / "m.gguf")
    convert(open_checkpoint(folder.parent / "m.gguf"), folder.parent / "back")
    return folder.parent / "back"


def both(folder):
    paths = folder, round_trip(folder)
    return [transformers.AutoTokenizer.from_pretrained(path) for path in paths]


def test_added_tokens_and_their_kinds_come_back(folder):
    ours, back = both(folder())
    assert back.get_added_vocab() == ours.get_added_vocab()
    special = [
        {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        for tokenizer in (ours, back)
    ]
    assert special[0] == special[1] >= {"<|user|>", "<|end|>", "<|endoftext|>", "[PAD]"}
    assert "tool_call" not in special[1]


def test_ids_and_texts_are_the_same(folder):
    ours, back = both(folder())
    for text in TEXTS:
        ids = ours(text).input_ids
        assert back(text).input_ids == ids
        assert back.decode(ids, skip_special_tokens=True) == ours.decode(ids, skip_special_tokens=True)


def test_a_token_before_every_text_comes_back(folder):
    ours, back = both(folder(before=True))
    for text in TEXTS:
        assert back(text).input_ids == ours(text).input_ids
    assert back("a").input_ids[0] == back.bos_token_id


def test_roles_and_template_come_back(folder):
    ours, back = both(folder())
    for role in ("bos_token", "eos_token", "pad_token", "unk_token", "chat_template"):
        assert getattr(back, role) == getattr(ours, role), role
    messages = [{"role": "user", "content": "Hi"}]
    assert back.apply_chat_template(messages, tokenize=False) == "<|user|>Hi<|end|>"


@pytest.mark.parametrize("ends", [("<|endoftext|>",), ("<|end|>",), ("<|end|>", "<|endoftext|>", "<|user|>")])
def test_the_ids_that_end_a_text_come_back(folder, ends):
    path = folder(ends=ends)
    back = round_trip(path)
    configs = [transformers.GenerationConfig.from_pretrained(place) for place in (path, back)]
    assert configs[1].eos_token_id == configs[0].eos_token_id
    assert configs[1].bos_token_id == configs[0].bos_token_id


def test_types_are_those_of_llama_cpps_converter(folder):
    gguf = needs.package("gguf")
    path = folder()
    round_trip(path)
    fields = {key: field.contents() for key, field in gguf.GGUFReader(path.parent / "m.gguf").fields.items()}
    types = dict(zip(fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True))
    kind = gguf.TokenType
    assert [types[token] for token in ("<|user|>", "<|end|>", "<|endoftext|>", "[PAD]")] == [kind.CONTROL] * 4
    assert (types["tool_call"], types["Ġw"], types["[PAD265]"]) == (kind.USER_DEFINED, kind.NORMAL, kind.UNUSED)
    special = gguf.SpecialVocab(path, load_merges=True)
    for role, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")):
        assert fields[f"tokenizer.ggml.{key}_token_id"] == special.special_token_ids[role], role
    assert fields["tokenizer.chat_template"] == TEMPLATE


def test_another_tokenizer_goes_along_as_a_whole(tmp_path, caplog):
    vocabulary = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0)]
    vocabulary += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz"] + [("▁he", -1.0), ("llo", -1.0)]
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=0))
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    unigram.decoder = tokenizers.decoders.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=unigram, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=TEMPLATE
    )
    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_positions=16, n_embd=32, n_layer=1, n_head=2)
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "hf")
    tokenizer.save_pretrained(tmp_path / "hf")
    ours, back = both(tmp_path / "hf")
    assert "llama.cpp can use this file with token ids only" in caplog.text
    in_gguf = tokenizer_of(open_checkpoint(tmp_path / "m.gguf"))
    for text in ("hello", "he said hello"):
        assert back(text).input_ids == ours(text).input_ids == in_gguf.encode(text)
    for role in ("bos_token", "eos_token", "unk_token", "chat_template"):
        assert getattr(back, role) == getattr(ours, role), role
    assert in_gguf.eos == (tokenizer.eos_token_id,)
