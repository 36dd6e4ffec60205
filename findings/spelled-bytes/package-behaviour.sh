#!/usr/bin/env bash
# A word that spells a byte piece of SentencePiece ("<0x0A>") is letters to SentencePiece, and a line break to the
# tokenizers library that loads the same vocabulary as Unigram with byte fallback: a text can hold a byte that nobody
# wrote. Seen with tokenizers 0.23.3 and sentencepiece 0.2.3:
#   sentencepiece: ['▁', 'a', '<0x3C>', '<0x30>', 'x', '<0x30>', '<0x41>', '<0x3E>', 'b'] -> 'a<0x0A>b'
#   tokenizers:    ['▁', 'a', '<0x0A>', 'b'] -> 'a\nb'
# Exits with 1 if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tokenizers==0.23.3 sentencepiece==0.2.3 protobuf
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import sentencepiece
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

model = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["a b x ab", "b a x xa"] * 50), model_writer=model, vocab_size=266, model_type="unigram",
    byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
)
own = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
vocabulary = [(own.id_to_piece(i), own.get_score(i)) for i in range(len(own))]
tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=own.unk_id(), byte_fallback=True))
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
text = "a<0x0A>b"
encoded = tokenizer.encode(text)
said = own.decode(own.encode(text)), tokenizer.decode(encoded.ids)
print("sentencepiece:", own.encode(text, out_type=str), "->", repr(said[0]))
print("tokenizers:   ", encoded.tokens, "->", repr(said[1]))
sys.exit(said != (text, "a\nb"))
PY
