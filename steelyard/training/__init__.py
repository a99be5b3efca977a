"""Training a LightRetriever: one language model as document encoder and as source of the look-ups.

``data`` makes and reads what is trained on. A run, from examples to an adapter:

- ``settings``: what decides its result;
- ``batches``: examples -> what each step sees; ``tokenised``: texts -> token ids;
- ``lora``: the adapter that learns, and its files;
- ``trainer``: the loop; ``checkpoints``: to go on from; ``log``: what it tells;
- ``short_run``: the same steps in memory; ``variants``: what ablations change of the towers.

One optimiser step is ``optimisation``, its gradients are ``step``, and where each part of them is
(LightRetriever, section 1):

- ``query_blocks``: token ids -> light query vectors, by the block mask;
- ``max_pooling``: hidden states -> largest logits, with gradients, in bounded memory;
- ``towers``: token ids -> every vector that the losses need, from one shared backbone;
- ``gather``: the batches of all processes seen as one;
- ``mrl``: shorter vectors out of long ones;
- ``losses``: vectors -> the loss and its terms;
- ``schedules``: step -> strength of the regulariser, learning rate;
- ``grad_cache``: a batch larger than memory, by chunks, with the gradients of the whole.

Vectors are made by the same rules as in ``steelyard.encoders.causal``, so that a trained model
builds its pack and encodes its documents there as any other does.
"""
