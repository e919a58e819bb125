/* Patches of an image: the codes that output positions see, as signed bytes. */
#ifndef MPS_GATHERING_H
#define MPS_GATHERING_H

#include "helium.h"

/* One patch: the places of output position (y, x), `inputs` channels of each from `channel` on. */
static MPS_APART void gather(const mps_convolution *c, const void *image, int y, int x, int channel,
                             int inputs, int8_t *patch) {
    const mps_layer *layer = &c->layer;
    const int zero = layer->input_zero - layer->offset, size = c->kernel_width * inputs;
    const int left = x * c->stride_x - c->left;
    const int together = c->dilation_x == 1 && inputs == c->channels;
    const int from = left < 0 ? mps_at_most(-left, c->kernel_width) : 0; /* columns inside */
    int to = mps_at_most(c->width - left, c->kernel_width), sy = y * c->stride_y - c->top;
    if (to < from)
        to = from;
    for (int ky = 0; ky < c->kernel_height; ky++, sy += c->dilation_y) {
        const size_t line = (size_t)sy * (size_t)c->width;
        if (sy < 0 || sy >= c->height) {
            mps_fill_bytes(patch, size, zero);
            patch += size;
        } else if (together) {
            mps_fill_bytes(patch, from * inputs, zero);
            mps_take(layer, image, (line + (size_t)(left + from)) * (size_t)inputs,
                     (to - from) * inputs, patch + from * inputs);
            mps_fill_bytes(patch + to * inputs, (c->kernel_width - to) * inputs, zero);
            patch += size;
        } else {
            for (int kx = 0, sx = left; kx < c->kernel_width; kx++, sx += c->dilation_x) {
                if (sx < 0 || sx >= c->width)
                    mps_fill_bytes(patch, inputs, zero);
                else
                    mps_take(layer, image,
                             (line + (size_t)sx) * (size_t)c->channels + (size_t)channel, inputs,
                             patch);
                patch += inputs;
            }
        }
    }
}

/* Output columns (or lines) that see no padding: first ... end - 1. */
typedef struct {
    int first, end;
} range;

static range inside_of(int padding, int stride, int span, int length, int count) {
    range r = {(padding + stride - 1) / stride, 0};
    if (length + padding >= span)
        r.end = mps_at_most((length + padding - span) / stride + 1, count);
    return r;
}

/* Patches of `positions` positions from (*y, *x) on, which are moved, `row` bytes apart. Those in
   the midst of an image of bytes, whose lines are pieces each, are copied at once. */
static void gather_block(const mps_convolution *c, const void *image, int *y, int *x, int channel,
                         int inputs, int positions, int8_t *patches, int row) {
    const int size = c->kernel_width * inputs, flip = c->layer.offset;
    const ptrdiff_t line = (ptrdiff_t)c->width * c->channels, below = c->dilation_y * line;
    const ptrdiff_t beside = (ptrdiff_t)c->stride_x * c->channels;
    const range rows = inside_of(c->top, c->stride_y, (c->kernel_height - 1) * c->dilation_y + 1,
                                 c->height, c->output_height);
    range columns = inside_of(c->left, c->stride_x, c->kernel_width, c->width, c->output_width);
    if (c->layer.input_type != MPS_U8 || c->dilation_x != 1 || inputs != c->channels)
        columns.end = 0;
    while (positions > 0) {
        if (*y < rows.first || *y >= rows.end || *x < columns.first || *x >= columns.end) {
            gather(c, image, *y, *x, channel, inputs, patches);
            patches += row;
            positions--, ++*x;
        } else {
            const int some = mps_at_most(positions, columns.end - *x);
            const uint8_t *from = (const uint8_t *)image + (*y * c->stride_y - c->top) * line +
                                  (*x * c->stride_x - c->left) * c->channels;
            for (int p = some; p > 0; p--, from += beside, patches += row) {
                const uint8_t *piece = from;
                int8_t *to = patches;
                for (int ky = c->kernel_height; ky > 0; ky--, piece += below, to += size)
                    mps_copy(piece, size, flip, to);
            }
            positions -= some, *x += some;
        }
        if (*x == c->output_width)
            *x = 0, ++*y;
    }
}

#endif
