"""Models in formats of other engines: ONNX and GGUF files, each checked after it is written.

    onnx.py             any family, heads removed unevenly too; needs the extra `onnx`
    gguf.py             stock shapes only, a few families; needs the extra `gguf`
    gguf_tokenizer.py   the tokenizer's part of a GGUF file
    files.py            all or nothing on the disk, and the check of logits

A file that does not compute what the model computes is never left behind. Nothing here knows why
heads were removed.
"""
