"""The methods of pre-training by name. Imports no torch.

A new method is a file in this folder and a line in `METHODS`: its recipe with the source of every
number, and a `Method` that says what others ask. What it computes is in a module beside this
package, which `Method.build` imports; its task is a `mae_bench.pretraining.task.PretrainingTask`,
or, where it needs more than images without labels, a `Pretraining`.
"""

from mae_bench.pretraining.method import Method
from mae_bench.pretraining.methods.beit import BEIT
from mae_bench.pretraining.methods.mae import MAE
from mae_bench.pretraining.methods.moco_v3 import MOCO_V3
from mae_bench.pretraining.methods.supervised import SUPERVISED
from mae_bench.pretraining.methods.tokenizer import TOKENIZER

METHODS: dict[str, Method] = {
    method.name: method for method in (MAE, MOCO_V3, BEIT, SUPERVISED, TOKENIZER)
}
