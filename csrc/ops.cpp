// Every compiled op of the package. Kernels: cpu/ and cuda/, one file per op. Python functions, fake kernels, autograd
// and twins in plain PyTorch: maskrcnn_benchmark/layers/, one file per op, and structures/paste_masks.py.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(maskrcnn_benchmark, m) {
  // boxes (N, 4) xyxy, scores (N,), groups (N,) int64 -> indices of the kept boxes by descending score, int64
  m.def(
      "nms(Tensor boxes, Tensor scores, Tensor? groups, float iou_threshold, bool inclusive, int max_keep) -> Tensor");

  // inputs: maps (N, C, H_l, W_l) of a pyramid; rois (R, 5): image index and xyxy in pixels; levels (R,) int64: the map
  // of each ROI, None for a single map -> (R, C, pooled_h, pooled_w)
  m.def(
      "roi_align(Tensor[] inputs, Tensor rois, Tensor? levels, float[] spatial_scales, int pooled_h, int pooled_w, "
      "int sampling_ratio, bool aligned) -> Tensor");
  // sizes: H_l and W_l of every map, one after the other
  m.def(
      "roi_align_backward(Tensor grad, Tensor rois, Tensor? levels, int images, int[] sizes, float[] spatial_scales, "
      "int sampling_ratio, bool aligned, bool channels_last, bool deterministic) -> Tensor[]");

  // logits (N, K), targets (N,) int or (N, K) float -> (N, K)
  m.def("sigmoid_focal_loss(Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor");
  // -> (), the sum or mean, without storing the losses. No CUDA kernel: there sigmoid_focal_loss is summed.
  m.def(
      "sigmoid_focal_loss_sum(Tensor logits, Tensor targets, float gamma, float alpha, bool mean) -> Tensor");
  m.def(
      "sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor targets, float gamma, float alpha) -> Tensor");

  // masks (R, M, M), boxes (R, 4) xyxy -> COCO's compressed run lengths: concatenated texts (B,) uint8, and where each
  // ends (R,) int64. No CUDA kernel: run lengths are used on the host.
  m.def(
      "paste_masks_rle(Tensor masks, Tensor boxes, int height, int width, float threshold, int padding, bool aligned) "
      "-> (Tensor, Tensor)");

  // weight (K, C, 3, 3) -> (36, C * K), the input of the others; transposed: for the convolution that maps gradients of
  // outputs to those of inputs. Input (N, C, H, W) -> (N, K, H', W'). CPU only.
  m.def("winograd_weight(Tensor weight, bool transposed) -> Tensor");
  m.def("winograd_conv(Tensor input, Tensor weight, Tensor? bias, int padding, bool relu) -> Tensor");
  // grad (N, K, H', W'), input (N, C, H, W) -> (K, C, 3, 3) float32
  m.def("winograd_weight_grad(Tensor grad, Tensor input, int padding) -> Tensor");
  // the input concatenated with the output of each convolution (padding 1) and ReLU, applied in a chain
  m.def("winograd_chain(Tensor input, Tensor[] weights, Tensor[] biases) -> Tensor");
}
