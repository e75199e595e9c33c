import torch
from torch.nn import functional as F

from maskrcnn_benchmark.modeling.semantic.loss import semantic_loss
from maskrcnn_benchmark.structures.semantic_map import IGNORE_LABEL, SemanticMap


def test_loss_is_the_mean_over_labelled_pixels(rng_seed):
    logits = torch.randn(2, 4, 6, 8)
    labels = torch.randint(0, 4, (2, 6, 8), dtype=torch.uint8)
    labels[torch.rand(2, 6, 8) < 0.3] = IGNORE_LABEL
    loss = semantic_loss(logits, [SemanticMap(each) for each in labels])
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_LABEL))


def test_padding_is_ignored(rng_seed):
    logits = torch.randn(1, 4, 6, 8)
    labels = torch.randint(0, 4, (5, 7), dtype=torch.uint8)
    loss = semantic_loss(logits, [SemanticMap(labels)])
    torch.testing.assert_close(loss, F.cross_entropy(logits[:, :, :5, :7], labels.long()[None]))


def test_loss_without_labels_is_zero_and_keeps_the_graph(rng_seed):
    logits = torch.randn(1, 4, 6, 8, requires_grad=True)
    loss = semantic_loss(logits, [SemanticMap(torch.full((6, 8), IGNORE_LABEL, dtype=torch.uint8))])
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()


def test_half_precision_logits_are_summed_in_float32(rng_seed):
    logits = torch.randn(1, 3, 200, 300).bfloat16()
    labels = SemanticMap(torch.randint(0, 3, (200, 300), dtype=torch.uint8))
    loss = semantic_loss(logits, [labels])
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, F.cross_entropy(logits.double(), labels.labels.long()[None]).float())
