"""Readers of model files that clients sent, which trust nothing in them.

    file → bytes, limited in size → checked arrays by variable → flat float32 vector `[d]`

Only arrays are read from a file. Nothing in it is executed or unpickled: no config, no graph.

| file | written by | variables are matched by |
|---|---|---|
| `.keras` | `model.save` | Keras' own path in `model.weights.h5`, as `load_model` would |
| `.weights.h5` | `model.save_weights` | the same |
| `.npz` | `np.savez` | path, such as `dense/bias`, or all by position (`arr_0`, `arr_1`, …) |
| `.safetensors` | `safetensors.numpy.save_file` | path |
| SavedModel folder | `model.export`, `tf.saved_model.save` | path, in `variables/` only |

Paths and positions are those of `model.weights` of the global model. Variables that share a path
are called `conv/kernel`, `conv (2)/kernel`, … in `.npz` and `.safetensors`. A file must hold each
variable exactly once, in the right shape, and no other variable. Three kinds of arrays are ignored:
integers and booleans (such as counters), because clients do not train them; the variables of the
optimizer and the metrics; and the seeds of random layers. Floating-point numbers of 16, 32 or 64
bits in either byte order are rounded to float32; bfloat16 is accepted where the global model uses
it. Other types are refused, as are values that are not finite as float32, and negative BatchNorm
variances.

The content of a file decides its format, not its name. A `.keras` file is refused if its config
names a class or function that the global model does not have, because someone might load it later:
see `tffl.untrusted.allowed_names`.

The parsers are those of NumPy, h5py, safetensors and TensorFlow. They get size limits and work on
one copy in memory. These checks cannot protect against a flaw in their native code: judge files of
unknown senders in a process, container or account that holds nothing of value.

A refused file raises `Refused`; its message gives the reason in one line. A file whose damage no
check expects is refused too, with the library's own message.
"""

from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.read import read_model
from tffl.untrusted.refusal import Refused, printable

__all__ = ["ExpectedVariables", "Refused", "printable", "read_model"]
