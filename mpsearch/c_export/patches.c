/* Layers of at most 8 bits as products of unpacked weights and patches.

   A patch is what one output position sees: codes - 128 as 8-bit integers, padded places as the
   zero point, filled up to `stride`, a multiple of 16. A block of positions is gathered once, then
   every output channel unpacks its weights once for the whole block. With z the zero point,
   sum w * (q - z) = sum w * (q - 128) + (128 - z) * sum w. The export has checked that no sum
   here exceeds 32 bits. */
#include "patches.h"

#include "products.h"

#define CHUNK 128 /* weights that are unpacked at once; a multiple of 16 */

#define FOUR 1, 1, 1, 1
#define SIXTEEN FOUR, FOUR, FOUR, FOUR
static const int8_t ONES[CHUNK] = {SIXTEEN, SIXTEEN, SIXTEEN, SIXTEEN,
                                   SIXTEEN, SIXTEEN, SIXTEEN, SIXTEEN};

/* Weights start ... start + count - 1 as 8-bit integers. */
static void unpack(const uint8_t *packed, int bits, size_t start, int count, int8_t *weights) {
    int i = 0;
    if (bits == 8) {
        memcpy(weights, packed + start, (size_t)count);
        return;
    }
    if (bits == 4 && start % 2 == 0) {
        i = unpack_4(packed + start / 2, count, weights);
    } else if (bits == 2 && start % 4 == 0) {
        const uint8_t *bytes = packed + start / 4;
        for (; i + 3 < count; i += 4)
            for (int k = 0; k < 4; k++)
                weights[i + k] = (int8_t)(((bytes[i / 4] >> (2 * k)) & 3) ^ 2) - 2;
    }
    for (; i < count; i++) weights[i] = (int8_t)mps_weight(packed, bits, start + (size_t)i);
}

void mps_multiply_patches(const mps_layer *layer, int first, int outputs, int terms,
                          const int8_t *patches, int positions, void *output, size_t at,
                          size_t channel_stride, size_t position_stride) {
    const int stride = MPS_STRIDE(terms);
    int8_t weights[CHUNK];
    for (int o = first; o < first + outputs; o++) {
        const mps_scale scale = mps_scale_of(layer, o);
        int32_t sums[MPS_POSITIONS] = {0}, total = 0;
        int64_t base = layer->bias ? layer->bias[o] : 0;
        for (int i = 0; i < terms; i += CHUNK) {
            const int count = terms - i < CHUNK ? terms - i : CHUNK;
            const int filled = MPS_STRIDE(count);
            int p = 0;
            unpack(layer->weights, layer->bits, (size_t)o * (size_t)terms + (size_t)i, count,
                   weights);
            if (filled > count) memset(weights + count, 0, (size_t)(filled - count));
            total += product(weights, ONES, filled);
            for (; p + 4 <= positions; p += 4)
                four_products(weights, patches + p * stride + i, stride, filled, sums + p);
            for (; p < positions; p++) sums[p] += product(weights, patches + p * stride + i, filled);
        }
        base += (int64_t)(128 - layer->input_zero) * total;
        if (layer->output_type == MPS_U8) {
            unsigned char *codes = (unsigned char *)output + at + (size_t)o * channel_stride;
            for (int p = 0; p < positions; p++)
                codes[(size_t)p * position_stride] =
                    (unsigned char)mps_finish(layer, scale, sums[p] + base);
            continue;
        }
        for (int p = 0; p < positions; p++)
            mps_set(output, layer->output_type,
                    at + (size_t)o * channel_stride + (size_t)p * position_stride,
                    mps_finish(layer, scale, sums[p] + base));
    }
}

/* The patch of output position (y, x), from the first channel of its group on. */
static void gather(const mps_convolution *c, const unsigned char *image, int y, int x,
                   int8_t *patch) {
    const int inputs = c->channels / c->groups, zero = c->layer.input_zero;
    const int top = y * c->stride_y - c->top, left = x * c->stride_x - c->left;
    const int inside = top >= 0 && left >= 0 &&
                       top + (c->kernel_height - 1) * c->dilation_y < c->height &&
                       left + (c->kernel_width - 1) * c->dilation_x < c->width;
    if (c->kernel_height * c->kernel_width == 1 && inside) {
        const unsigned char *code = image + top * c->width + left;
        for (int channel = 0; channel < inputs; channel++, code += c->height * c->width)
            patch[channel] = (int8_t)(*code - 128);
        return;
    }
    for (int channel = 0; channel < inputs; channel++) {
        for (int ky = 0; ky < c->kernel_height; ky++) {
            const int sy = top + ky * c->dilation_y;
            const int start = sy * c->width;
            if (inside && c->kernel_width == 3 && c->dilation_x == 1) {
                const unsigned char *line = image + start + left;
                patch[0] = (int8_t)(line[0] - 128);
                patch[1] = (int8_t)(line[1] - 128);
                patch[2] = (int8_t)(line[2] - 128);
                patch += 3;
                continue;
            }
            for (int kx = 0; kx < c->kernel_width; kx++) {
                const int sx = left + kx * c->dilation_x;
                const int there = sy >= 0 && sy < c->height && sx >= 0 && sx < c->width;
                *patch++ = (int8_t)((there ? image[start + sx] : zero) - 128);
            }
        }
        image += (size_t)c->height * (size_t)c->width;
    }
}

void mps_convolve_patches(const mps_convolution *c, int8_t *patches, const void *input,
                          void *output) {
    const int inputs = c->channels / c->groups, outputs = c->outputs / c->groups;
    const int terms = inputs * c->kernel_height * c->kernel_width, stride = MPS_STRIDE(terms);
    const int count = c->output_height * c->output_width;
    const size_t plane = (size_t)c->height * (size_t)c->width;
    for (int group = 0; group < c->groups; group++) {
        const unsigned char *image =
            (const unsigned char *)input + (size_t)(group * inputs) * plane;
        for (int first = 0; first < count; first += MPS_POSITIONS) {
            const int positions = count - first < MPS_POSITIONS ? count - first : MPS_POSITIONS;
            for (int p = 0; p < positions; p++)
                gather(c, image, (first + p) / c->output_width, (first + p) % c->output_width,
                       patches + p * stride);
            mps_multiply_patches(&c->layer, group * outputs, outputs, terms, patches, positions,
                                 output, (size_t)first, (size_t)count, 1);
        }
    }
}

void mps_linear_patches(const mps_linear *l, int8_t *patches, const void *input, void *output) {
    const unsigned char *codes = input;
    const int stride = MPS_STRIDE(l->inputs);
    for (int first = 0; first < l->rows; first += MPS_POSITIONS) {
        const int rows = l->rows - first < MPS_POSITIONS ? l->rows - first : MPS_POSITIONS;
        for (int p = 0; p < rows; p++)
            for (int i = 0; i < l->inputs; i++)
                patches[p * stride + i] =
                    (int8_t)(codes[(size_t)(first + p) * (size_t)l->inputs + (size_t)i] - 128);
        mps_multiply_patches(&l->layer, 0, l->outputs, l->inputs, patches, rows, output,
                             (size_t)first * (size_t)l->outputs, 1, (size_t)l->outputs);
    }
}
