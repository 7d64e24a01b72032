"""An encoder of your own: a sound fills four slots. Registered, it is saved and loaded with the model like any other.

<s> In: [sound × 4] High or low? Out: low </s>
"""

import tempfile

import numpy as np
import torch

import vertebra as vt
from vertebra.model import ItemEncoder, new_part


@vt.register_encoder
class SoundEncoder(ItemEncoder):
    kind, width, slots = "example-sound", 32, 4

    def __init__(self):
        super().__init__()
        self.convolution = torch.nn.Conv1d(1, self.width, kernel_size=64, stride=64)

    def forward(self, values):  # [M, 256] -> [M, 4, 32]
        return self.convolution(values[:, None]).relu().transpose(1, 2)

    def settings(self):  # what `SoundEncoder(**settings)` needs
        return {}

    def about(self):  # for `vertebra info`
        return "waves of 256 samples"

    def prepare(self, items):
        return np.asarray(items, dtype=np.float32)

    def faults(self, values):
        return [] if values.shape[1:] == (256,) else [(None, f"expected waves [M, 256], got {tuple(values.shape)}")]

    def sample(self, count, generator):  # to bring its output to the size of tokens
        return torch.randn(count, 256, generator=generator)


def row(model, pitch, phase, *answer):
    asked = {"role": "user", "content": [{"type": "vector", "name": "sound"}, "High or low?"]}
    wave = np.sin(np.arange(256) * {"low": 0.05, "high": 0.5}[pitch] + phase)
    return model.render([asked, *answer]), model.prepare({"sound": [wave]})


backbone = vt.load_backbone("tiny-llama2")
model = vt.Model(backbone, {"sound": new_part(backbone, SoundEncoder(), "linear")})
rows = [row(model, name, at, {"role": "assistant", "content": name}) for name in ("low", "high") for at in range(8)]
batch = model.collate(*zip(*rows, strict=True))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for _ in range(40):
    optimizer.zero_grad()
    model(**batch).loss.backward()
    optimizer.step()
loaded = vt.load(model.save(tempfile.mkdtemp(), overwrite=True))
new = loaded.collate(*zip(row(loaded, "low", 0.5), row(loaded, "high", 0.5), strict=True))
print("two new sounds, a low and a high one:", vt.generate(loaded, new, max_new_tokens=4).text)
