/* One struct of constants and one function per kind of step, for one sample. Images are stored
   channels last: [height, width, channels]. Other tensors are row-major. */
#ifndef MPS_KERNELS_H
#define MPS_KERNELS_H

#include "integers.h"

#define MPS_DIMS 6 /* axes of a move or a mean after joining neighbours */

/* How a sum is rescaled, see rescaling.h: half to even from 64-bit products, or from their upper
   halves where the export has proven that no tie can occur. */
typedef enum { MPS_EXACT, MPS_HALF_UP } mps_rounding;

/* What is added to the results of a layer, which are 16-bit integers that are not stored: at the
   same place of another tensor, (result * multiplier + addend * other + offset * 2^raise) /
   2^shift, half to even, + output_zero, clipped. The output may be the addend's own memory. */
typedef struct {
    mps_type addend_type, output_type;
    int32_t multiplier, other, offset;
    int raise, shift;
    int32_t output_zero, low, high;
} mps_sum;

/* What a convolution and a linear layer share: sum of weight * (code - offset) -> + base ->
   rescale + zero point -> clip. The order of the weights is that of the kernel that reads them. */
typedef struct {
    const uint8_t *weights;     /* packed codes of `bits` bits */
    const int32_t *base;        /* per output channel: bias, and what `offset` changes; or NULL */
    const uint32_t *scales;     /* bits of float32 weight scales, see mps_factor; or NULL: */
    const int32_t *multipliers; /* the factors themselves, one per output channel */
    const int8_t *shifts;
    uint64_t factor; /* with `scales`: input scale / output scale = factor * 2^-exponent */
    int exponent;
    int bits;
    int pre_shift; /* brings 64-bit sums to 32 bits */
    int wide_sums; /* 1: sums need 64 bits */
    int run;       /* products of a weight and a code - offset that fit 16 bits together */
    mps_rounding rounding;
    int raise;           /* with MPS_HALF_UP: see rescaling.h */
    mps_type input_type; /* MPS_U8 or MPS_U16 */
    mps_type output_type;
    int32_t input_zero; /* what is padded */
    int32_t offset, output_zero, low, high;
    const mps_sum *sum; /* or NULL */
} mps_layer;

typedef struct {
    mps_layer layer;
    int channels, height, width;
    int outputs, output_height, output_width;
    int kernel_height, kernel_width, stride_y, stride_x, top, left, dilation_y, dilation_x, groups;
    int block; /* patches at once */
} mps_convolution;

typedef struct {
    mps_layer layer;
    int rows, inputs, outputs;
    int block; /* rows at once; of a table whether each row has a scale */
} mps_linear;  /* also a table that is looked up: `rows` numbers, `outputs` rows of `inputs` */

typedef struct {
    mps_type input_type, output_type;
    size_t count;
    int32_t multiplier;
    int shift;
    int32_t input_zero, output_zero, low, high;
    mps_rounding rounding;
    int raise;
} mps_requantization;

typedef struct {
    mps_type type;
    size_t count;
    int32_t low, high;
} mps_elementwise; /* clamp and add: one type and scale in and out */

typedef struct {
    mps_type type;
    int channels, height, width, output_height, output_width;
    int kernel_height, kernel_width, stride_y, stride_x, top, left, dilation_y, dilation_x;
    int32_t lowest;
} mps_max_pooling;

/* Sums of (code - input_zero) to means at another scale: one factor, or one for every place. */
typedef struct {
    const int32_t *multipliers; /* NULL: the sum is divided, and keeps its scale */
    const int8_t *shifts;
    int each; /* 1: every place of the output has a factor of its own */
    int pre_shift;
    int32_t input_zero, output_zero, low, high;
} mps_scaling;

typedef struct {
    mps_type type, output_type;
    int channels, height, width, output_height, output_width;
    const int32_t *rows, *columns; /* (start, end) of every output row and column */
    const int32_t *counts;         /* divisor of every output place; NULL with a scaling */
    mps_scaling scaling;
} mps_average_pooling;

typedef struct {
    mps_type type;
    int channels, width, output_height, output_width;
    const int32_t *rows, *columns; /* (lower, upper, weight of the upper) of every one */
} mps_resizing;

typedef struct {
    mps_type type, output_type;
    int kept_dims, mean_dims;
    int32_t kept_shape[MPS_DIMS], kept_strides[MPS_DIMS];
    int32_t mean_shape[MPS_DIMS], mean_strides[MPS_DIMS];
    mps_scaling scaling;
} mps_means;

/* Elements of `size` bytes from one strided box to another: concatenate, permute, slice, pad. */
typedef struct {
    size_t size, from_start, to_start;
    int dims;
    int32_t shape[MPS_DIMS], from_strides[MPS_DIMS], to_strides[MPS_DIMS];
} mps_movement;

/* Runs of elements from where tables say, one table per axis after the other: flips, nearest
   upsampling by fractions, reflecting pads. */
typedef struct {
    size_t size, run, start; /* bytes of an element; elements side by side on both sides */
    int dims;
    int32_t shape[MPS_DIMS], to_strides[MPS_DIMS];
    const int32_t *offsets;
} mps_gathering;

typedef struct {
    mps_type input_type, output_type;
    int outer, length, inner;
    int32_t multiplier; /* of softmax: differences -> log2 units of 2^-20 */
    int shift;
} mps_along_axis;

typedef struct {
    mps_along_axis axis;
    int32_t multiplier; /* log2 units of 2^-20 -> steps of the output */
    int shift;
    int32_t output_zero, low, high;
} mps_log_along_axis;

/* A function of one number: knots every 2^segment codes, in units of 2^-fraction of a result. */
typedef struct {
    mps_type output_type;
    size_t count;
    const int16_t *table;
    int segment, fraction;
    int32_t output_zero, low, high;
} mps_lookup;

/* Whole numbers from `first` to `last`, and all others. */
typedef struct {
    mps_type input_type, output_type;
    size_t count;
    int32_t first, last, inside, outside;
} mps_interval;

#define MPS_OPERANDS 6

/* The same places of several arrays: strides of 0 repeat an array along an axis. */
typedef struct {
    int dims;
    int32_t shape[MPS_DIMS], strides[MPS_OPERANDS][MPS_DIMS];
} mps_grid;

/* multipliers[0] * a + multipliers[1] * b + offset * 2^raise, / 2^shift; without b its multipliers
   are NULL. The grid: output, a, multipliers of a, offset, b, multipliers of b. */
typedef struct {
    mps_grid grid;
    mps_type types[2], output_type; /* of a, of b */
    const int32_t *multipliers[2], *offset;
    int raise, shift;
    int32_t output_zero, low, high;
} mps_affine;

/* a * b * multiplier / 2^shift. The grid: output, a, b. */
typedef struct {
    mps_grid grid;
    mps_type output_type;
    int32_t multiplier;
    int shift;
    int32_t output_zero, low, high;
} mps_product;

/* x * positive / 2^shift, negative ones times `negative`. The grid: output, x, negative. */
typedef struct {
    mps_grid grid;
    mps_type output_type;
    int32_t positive;
    const int32_t *negative;
    int shift;
    int32_t output_zero, low, high;
} mps_slopes;

/* Rows of `length` neighbours, each normalized by itself. Element i of the sample takes the factors
   of channel i / inner mod channels. */
typedef struct {
    mps_type input_type, output_type;
    int rows, length, channels, inner;
    int centred;   /* 1: the mean is taken off */
    int64_t added; /* to the variance, in 2^-8 */
    const int32_t *multipliers, *offsets;
    int raised, shift;
    int32_t output_zero, low, high;
} mps_normalization;

/* [rows, terms] times [terms, columns], `matrices` times. */
typedef struct {
    mps_type left_type, right_type, output_type;
    int matrices, rows, terms, columns;
    int32_t left_zero, right_zero, multiplier;
    int shift, pre_shift; /* brings 64-bit sums to 32 bits */
    int32_t output_zero, low, high;
} mps_matrix_product;

/* A mean of `taken` codes from their sum. */
static inline int32_t mps_scaled_mean(const mps_scaling *s, int64_t sum, int64_t taken,
                                      size_t place) {
    const size_t i = s->each ? place : 0;
    return mps_clip(
        mps_rescale(sum - s->input_zero * taken, s->multipliers[i], s->shifts[i], s->pre_shift) +
            s->output_zero,
        s->low, s->high);
}

/* Layers as in layers.c, patches.c and depthwise.c; `scratch` is memory that these work in,
   `addend` what the layer's sum adds, or NULL. */
void mps_convolve(const mps_convolution *step, const void *input, const void *addend, void *output);
void mps_convolve_transposed(const mps_convolution *step, void *scratch, const void *input,
                             void *output);
void mps_multiply(const mps_linear *step, const void *input, const void *addend, void *output);
void mps_embed(const mps_linear *step, const void *input, void *output);
void mps_convolve_patches(const mps_convolution *step, void *scratch, const void *input,
                          const void *addend, void *output);
void mps_multiply_patches(const mps_linear *step, void *scratch, const void *input,
                          const void *addend, void *output);
void mps_convolve_depthwise(const mps_convolution *step, void *scratch, const void *input,
                            const void *addend, void *output);
void mps_requantize(const mps_requantization *step, const void *input, void *output);
void mps_clamp(const mps_elementwise *step, const void *input, void *output);
void mps_add(const mps_elementwise *step, const void *left, const void *right, void *output);
void mps_max_pool(const mps_max_pooling *step, const void *input, void *output);
void mps_average_pool(const mps_average_pooling *step, const void *input, void *output);
void mps_resize(const mps_resizing *step, const void *input, void *output);
void mps_mean(const mps_means *step, const void *input, void *output);
void mps_move(const mps_movement *step, const void *input, void *output);
void mps_gather(const mps_gathering *step, const void *input, void *output);
void mps_fill(mps_type type, size_t count, int32_t value, void *output);
void mps_softmax(const mps_along_axis *step, const int32_t *table, const void *input, void *output);
void mps_log_softmax(const mps_log_along_axis *step, const int32_t *powers,
                     const int32_t *logarithms, const void *input, void *output);
void mps_argmax(const mps_along_axis *step, const void *input, void *output);
void mps_compare(const mps_interval *step, const void *input, void *output);
void mps_look_up(const mps_lookup *step, const void *input, void *output);
void mps_transform(const mps_affine *step, const void *a, void *output);
void mps_combine(const mps_affine *step, const void *a, const void *b, void *output);
void mps_times(const mps_product *step, const void *a, const void *b, void *output);
void mps_prelu(const mps_slopes *step, const void *input, void *output);
void mps_normalize(const mps_normalization *step, const void *input, void *output);
void mps_multiply_matrices(const mps_matrix_product *step, const void *left, const void *right,
                           void *output);

#endif
