"""Decodes lines of standard input with an exported model, greedily. It needs torch alone.

    python run_search.py export runs/g2p --to g2p
    echo pronounce | python examples/read_exported.py g2p

It reads models of one layer of BasicLSTMCell on each side, a BidirectionalRNNEncoder, a ZeroBridge,
bahdanau attention and characters as source tokens; of an ensemble, the best member. `decode FOLDER`
reads all.
"""

import json
import sys
from pathlib import Path

import torch
from torch import Tensor

folder = Path(sys.argv[1])
about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
source, target, best = about["source_tokens"], about["target_tokens"], about["members"][0]
data = (folder / best["weights"]).read_bytes()
begin = 8 + int.from_bytes(data[:8], "little")  # the weights follow a header in JSON
w = {}
for key, x in json.loads(data[8:begin]).items():
    first, end = (begin + offset for offset in x["data_offsets"])
    w[key] = torch.frombuffer(bytearray(data[first:end]), dtype=torch.float32).view(x["shape"])


def lstm(name: str, x: Tensor, c: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
    gates = x @ w[f"{name}.input_weights"] + h @ w[f"{name}.recurrent_weights"]
    i, j, f, o = (gates + w[f"{name}.biases"]).chunk(4)
    c = torch.sigmoid(f + 1) * c + torch.sigmoid(i) * torch.tanh(j)
    return c, torch.sigmoid(o) * torch.tanh(c)


def read(name: str, xs: Tensor) -> Tensor:
    states = [(torch.zeros(len(w[f"{name}.recurrent_weights"])),) * 2]
    for x in xs:
        states.append(lstm(name, x, *states[-1]))
    return torch.stack([h for _, h in states[1:]])


def affine(name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


for line in sys.stdin:
    ids = [source.index(x) if x in source else len(source) for x in line.rstrip("\n")]
    ids.append(len(source) + 2)  # SEQUENCE_END
    if best["hparams"]["source.reverse"]:
        ids.reverse()
    xs = w["source_embedding.weight"][ids]
    backward = read("encoder.backward_cell.layers.0", xs.flip(0)).flip(0)
    memory = torch.cat([read("encoder.forward_cell.layers.0", xs), backward], 1)
    c = h = torch.zeros(len(w["decoder.cell.layers.0.recurrent_weights"]))
    context, answer = torch.zeros(memory.shape[1]), [len(target) + 1]  # SEQUENCE_START
    for _ in range(best["hparams"]["inference.max_decode_length"]):
        x = torch.cat([w["target_embedding.weight"][answer[-1]], context])
        c, h = lstm("decoder.cell.layers.0", x, c, h)
        keys = affine("decoder.attention.keys", memory) + affine("decoder.attention.query", h)
        context = torch.softmax(torch.tanh(keys) @ w["decoder.attention.v"], 0) @ memory
        mixed = torch.tanh(affine("decoder.mix", torch.cat([h, context])))
        answer.append(int(affine("decoder.logits", mixed).argmax()))
        if answer[-1] == len(target) + 2:  # SEQUENCE_END
            break
    names = [*target, *about["special_tokens"][:2], ""]
    print(about["delimiters"][1].join(names[i] for i in answer[1:] if names[i]))
