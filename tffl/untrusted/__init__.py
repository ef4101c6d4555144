"""Model files that strangers sent, read without trusting them.

    file → bytes, bounded → arrays by variable, checked → flat float32 vector `[d]`

Nothing in a file is ever executed or deserialized beyond arrays: no pickle, no config, no graph.

| file | made by | variables are matched by |
|---|---|---|
| `.keras` | `model.save` | Keras' own path in `model.weights.h5`, as `load_model` would |
| `.weights.h5` | `model.save_weights` | the same |
| `.npz` | `np.savez` | path such as `dense/bias`, or all by position (`arr_0`, `arr_1`, …) |
| `.safetensors` | `safetensors.numpy.save_file` | path |
| SavedModel folder | `model.export`, `tf.saved_model.save` | path, in `variables/` only |

Paths and positions are those of `model.weights` of the global model. Where several variables have
one path, they are called `conv/kernel`, `conv (2)/kernel`, … in `.npz` and `.safetensors`. A file
has to hold each variable once, in its shape, and no other one. Passed over are integers and
booleans, such as counters, which are the server's own; the optimizer's and the metrics' variables;
and the seeds of random layers. Floating-point numbers of 16, 32 or 64 bits in either byte order are
rounded to float32, and bfloat16 where the global model has it; all else is refused, and so are
values that are not finite afterwards, and negative BatchNorm variances.

A file's kind is told by its content. A `.keras` file whose config names a class or function that
the global model's does not have is refused, as its user might load it: see
`tffl.untrusted.allowed_names`.

The parsers are NumPy's, h5py's, safetensors' and TensorFlow's, bounded and given only what has been
read once into memory. A flaw in the native code of one of them is beyond these checks: judge files
of unknown senders in a process, container or account that has nothing to lose.

What is refused raises `Refused`, whose message is the reason in one line. Damage that no check
foresaw is refused too, with what the library said.
"""

from tffl.untrusted.expected import ExpectedVariables
from tffl.untrusted.read import read_model
from tffl.untrusted.refusal import Refused, printable

__all__ = ["ExpectedVariables", "Refused", "printable", "read_model"]
