"""A second implementation of the loops over time, faster: written-out gradients, and C on the CPU.

The numbers equal those of the plain loops in `nn` up to rounding. Without a C compiler at
installation, and on a GPU, torch runs the loops of this room. Nothing here has run on a GPU yet.

Who imports what (`tests/test_layers.py` holds the code to this table):
    cell_loops        nn.cells, nn.stacks, nn.decoders, nn.stepping
    attention_loops   nn.attention, nn.decoders
    greedy_loop       nn.generate
    loss              nn.decoders
    matmul            nn.cells, nn.attention, nn.stepping, training.optimizers
    native            no module outside this room; tests and benchmarks only
`greedy_loop` in turn imports the models that it runs; the other modules import nothing of `nn`.

The functions for use outside. Autograd finds their gradients, except with `out=`:
    cell_loops.unroll            a cell over all positions
    attention_loops.attend       all steps of an attention decoder
    loss.cross_entropy           the loss of all steps
    matmul.mm, addmm, multi_dot  products of matrices
Two more are called where no gradient is asked for: `greedy_loop.greedy_ids`, greedy decoding, and
`matmul.sum_rows`, sums of rows by id.

The objects of a loop (`Steps` of a layer, `Dropout`, `AttentionSteps`) serve one batch. The order
of their calls:
    1. The constructors, from the bottom up: each object takes the output buffer of the one below.
       With attention, `AttentionSteps` is first, since the first layer reads its contexts. Of the
       buffers only the row before the first step is defined now, and the inputs' part of `gates`.
    2. The forward loop. In C: `arguments` of each object, then one `native.run_loops("forward")`.
       In torch: `start` of each, then `forward(t)` for all t; at each t from the bottom up. Now the
       outputs, the states, the contexts and the weights are defined.
    3. `keep` stores the objects in autograd's context.
    4. `taken` returns them, once: the backward loop overwrites the buffers. A second call raises
       RuntimeError.
    5. `take_gradients`, in the order of step 1: it makes the buffers whose names begin with d_,
       and each object takes the gradient buffer of the one below.
    6. The backward loop. In C: `arguments` of each, then one `native.run_loops("backward")`. In
       torch: `start_backward` of each, then `backward(t)` for all t in the opposite order; at each
       t from the top down.
    7. The gradients: `d_x_and_weights`, `d_first_state`, `d_values`, `d_tensors`.
An object made with `differentiable=False` ends with step 2. `greedy_loop` makes objects of one step
and gives their `arguments` to `native.run_greedy`, which runs all steps in these buffers.

Tensors go to C by address. `native` checks the type, device, layout and size of each at every call,
and compares the structures with those of the library when it loads the library.
"""
