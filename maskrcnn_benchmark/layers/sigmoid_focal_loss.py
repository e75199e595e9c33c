import torch
import torch.nn.functional as F


def sigmoid_focal_loss(logits, targets, gamma, alpha, reduction="none"):
    k = torch.arange(1, logits.shape[1] + 1, device=logits.device)
    t = (targets[:, None] == k).to(logits.dtype)
    valid = (targets >= 0)[:, None].to(logits.dtype)
    p = logits.sigmoid()
    ce = F.binary_cross_entropy_with_logits(logits, t, reduction="none")
    pt = p * t + (1 - p) * (1 - t)
    loss = (alpha * t + (1 - alpha) * (1 - t)) * (1 - pt) ** gamma * ce * valid
    return loss.sum() if reduction == "sum" else loss


class SigmoidFocalLoss: ...
