/* Convolution and linear layers for Helium, for weights and codes of up to 8 bits: dot products of
   16 terms at a time. A patch holds the codes that one output position sees, minus `offset`, which
   makes them signed bytes; padded places hold zero point - offset. Weights are row after row, in
   the patches' order, and those of less than 8 bits are unpacked once for a block of patches. */
#include "dot_products.h"
#include "gathering.h"

#define MOST 48   /* positions of a block; _MOST in helium.py */
#define CHUNK 512 /* terms whose weights are unpacked at once; _CHUNK in helium.py */
#define APART (CHUNK + 8)
#define FEW 12 /* positions of a block where there are more terms; _FEW in helium.py */

/* A layer at work on one group of channels. */
typedef struct {
    const mps_layer *layer;
    mps_factors factors;
    mps_parts parts;
    mps_adding adding;
    mps_row_adder add; /* or NULL: one row after the other */
    int8_t *unpacked;  /* memory for MPS_LANES rows of weights */
    int first, outputs, terms;
    int usual, nibbles; /* with two codes to a byte, but as usual */
    const void *addend;
    void *output;
} work;

/* Rows of 4 sums -> bytes; ADD is what comes first. */
#define FINISH(ADD)                                                                                \
    __asm__ volatile("dls lr, %[positions]\n"                                                      \
                     "1: vldrw.32 q0, [%[sums]], #16\n" ADD "vqdmulh.s32 q0, q0, %q[multiplier]\n" \
                     "vrshl.s32 q0, q0, %q[shift]\n"                                               \
                     "vadd.i32 q0, q0, %[zero]\n"                                                  \
                     "vmax.s32 q0, q0, %q[low]\n"                                                  \
                     "vmin.s32 q0, q0, %q[high]\n"                                                 \
                     "vstrb.32 q0, [%[to]]\n"                                                      \
                     "add %[to], %[to], %[stride]\n"                                               \
                     "le lr, 1b"                                                                   \
                     : [sums] "+r"(sums), [to] "+r"(to)                                            \
                     : [positions] "r"(positions), [stride] "r"(apart),                            \
                       [zero] "r"(layer->output_zero), [multiplier] "w"(multiplier),               \
                       [shift] "w"(shift), [low] "w"(low), [high] "w"(high), [base] "w"(base)      \
                     : "lr", "q0", "memory")

/* Rows of 4 sums -> what is stored; `more` is added first, unless it is NULL. */
static void finish_rows(work *w, int channel, int count, const int32_t *more, const int32_t *sums,
                        int positions, size_t at, size_t stride) {
    const mps_layer *layer = w->layer;
    const int32x4_t multiplier = vldrwq_s32(w->factors.multipliers + channel);
    const int32x4_t shift = vldrbq_s32(w->factors.shifts + channel);
    const int32x4_t base = more ? vldrwq_s32(more) : vdupq_n_s32(0);
    const int nibbles = w->nibbles && (at | stride) % 2 == 0;
    if ((w->usual || nibbles) && count == MPS_LANES) {
        uint32_t bytes[MOST];
        int8_t *to = nibbles ? (int8_t *)bytes : (int8_t *)w->output + at;
        const size_t apart = nibbles ? MPS_LANES : stride;
        const int32x4_t low = vdupq_n_s32(layer->low), high = vdupq_n_s32(layer->high);
        if (more)
            FINISH("vadd.i32 q0, q0, %q[base]\n");
        else
            FINISH("");
        for (int i = 0; nibbles && i < positions; i++) { /* four bytes become two */
            uint8_t *packed = (uint8_t *)w->output + (at + (size_t)i * stride) / 2;
            const uint32_t pairs = bytes[i] | bytes[i] >> 4;
            packed[0] = (uint8_t)pairs, packed[1] = (uint8_t)(pairs >> 16);
        }
        return;
    }
    if (w->add && count == MPS_LANES) {
        mps_adding *rows = &w->adding;
        vstrwq_s32(rows->base, base);
        vstrwq_s32(rows->multiplier, multiplier), vstrwq_s32(rows->shift, shift);
        rows->sums = sums, rows->stride = stride, rows->rows = positions;
        rows->addend = (const uint8_t *)w->addend + at * mps_size(layer->sum->addend_type);
        rows->output = (uint8_t *)w->output + at * mps_size(layer->sum->output_type);
        w->add(rows);
        return;
    }
    for (; positions > 0; positions--, sums += MPS_LANES, at += stride) {
        const int32x4_t x = vaddq_s32(vldrwq_s32(sums), base);
        mps_write(layer, &w->parts, mps_rescaled(layer, x, multiplier, shift), w->addend, w->output,
                  at, count);
    }
}

/* The same in pieces of CHUNK terms, where there are more and they have to be unpacked. */
static MPS_APART void multiply_chunks(const work *w, int channel, int count, const int32_t *base,
                                      const int8_t *patches, ptrdiff_t row, int positions,
                                      int32_t *sums) {
    const mps_layer *layer = w->layer;
    int32_t more[FEW * MPS_LANES];
    for (int k = 0; k < w->terms; k += CHUNK) {
        const int terms = mps_at_most(CHUNK, w->terms - k);
        for (int i = 0; i < count; i++) { /* rows begin where codes begin, not bytes */
            const size_t at = (size_t)(channel + i) * (size_t)w->terms + (size_t)k;
            const int before = (int)(at % 8);
            mps_unpack(layer->weights + at / 8 * (size_t)layer->bits, layer->bits, before + terms,
                       w->unpacked + 8 + i * APART - before);
        }
        multiply_rows(w->unpacked + 8, APART, count, k ? NULL : base, terms, patches + k, row,
                      positions, k ? more : sums);
        if (k)
            for (int i = 0; i < positions * MPS_LANES; i += MPS_LANES)
                vstrwq_s32(sums + i, vaddq_s32(vldrwq_s32(sums + i), vldrwq_s32(more + i)));
    }
}

/* All outputs of `positions` patches, `row` bytes apart, to elements at + channel + position *
   stride. */
static void multiply(work *w, const int8_t *patches, int row, int positions, size_t at,
                     size_t stride) {
    const mps_layer *layer = w->layer;
    const int in_place = layer->bits == 8;
    int32_t sums[MOST * MPS_LANES];
    for (int channel = 0; channel < w->outputs; channel += MPS_LANES) {
        const int count = mps_at_most(MPS_LANES, w->outputs - channel), o = w->first + channel;
        const int32_t *base = layer->base ? layer->base + o : NULL, *more = NULL;
        const size_t start = (size_t)o * (size_t)w->terms;
        const int8_t *weights = (const int8_t *)layer->weights + start;
        if (layer->bits == 4 && positions < 3 && w->terms % 32 == 0) {
            for (int p = 0; p < positions; p++)
                multiply_nibbles(layer->weights + start / 2, w->terms / 2, count, base, w->terms,
                                 patches + p * row, sums + p * MPS_LANES);
            finish_rows(w, channel, count, NULL, sums, positions, at + (size_t)o, stride);
            continue;
        }
        if (!in_place && w->terms <= CHUNK) {
            mps_unpack(layer->weights + start / 8 * (size_t)layer->bits, layer->bits,
                       (int)(start % 8) + count * w->terms, w->unpacked);
            weights = w->unpacked + start % 8;
        }
        /* as many weights as a short patch has bytes: what lies behind is multiplied with zeros */
        if ((row == SHORT || row == SHORT / 2) && count == MPS_LANES && positions >= 3 &&
            (!in_place || (w->outputs - channel - MPS_LANES) * w->terms >= row - w->terms)) {
            multiply_short_rows(weights, w->terms, patches, row, positions, sums);
            more = base;
        } else if (in_place || w->terms <= CHUNK) {
            multiply_rows(weights, w->terms, count, base, w->terms, patches, row, positions, sums);
        } else {
            multiply_chunks(w, o, count, base, patches, row, positions, sums);
        }
        finish_rows(w, channel, count, more, sums, positions, at + (size_t)o, stride);
    }
}

static work begin(const mps_layer *layer, int first, int outputs, int terms, void *scratch,
                  const void *addend, void *output, int8_t **patches) {
    work w;
    w.layer = layer, w.first = first, w.outputs = outputs, w.terms = terms;
    w.addend = addend, w.output = output;
    w.factors = mps_factors_of(layer, first, outputs, scratch);
    w.unpacked = w.factors.shifts + (outputs + MPS_LANES - 1) / MPS_LANES * MPS_LANES;
    w.usual = mps_is_usual(layer);
    w.nibbles = layer->rounding == MPS_HALF_UP && layer->raise == 0 && !layer->sum &&
                layer->output_type == MPS_U4;
    *patches = w.unpacked;
    if (layer->bits < 8)
        *patches += MPS_LANES * (terms > CHUNK ? APART : terms) + 8 + MPS_UNPACKED_SLACK;
    w.add = NULL;
    if (layer->sum) {
        w.parts = mps_parts_of(layer->sum);
        if (w.parts.vectors && layer->rounding == MPS_HALF_UP)
            w.add = mps_row_adder_of(layer->sum);
        mps_prepare_adding(layer, &w.parts, &w.adding);
    }
    return w;
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          const void *addend, void *output) {
    const int outputs = c->outputs / c->groups, inputs = c->channels / c->groups;
    const int terms = inputs * c->kernel_height * c->kernel_width;
    const int count = c->output_height * c->output_width;
    const int points = terms == c->channels && count == c->height * c->width && c->top == 0 &&
                       c->left == 0 && c->stride_y == 1 && c->stride_x == 1;
    const int in_place = points && c->layer.offset == 0 && c->layer.input_type == MPS_U8;
    const int row = points || terms > SHORT ? terms : terms > SHORT / 2 ? SHORT : SHORT / 2;
    for (int group = 0; group < c->groups; group++) {
        int8_t *patches;
        work w =
            begin(&c->layer, group * outputs, outputs, terms, scratch, addend, output, &patches);
        int y = 0, x = 0;
        if (row > terms)
            mps_fill_bytes(patches, c->block * row, 0);
        for (int first = 0, some; first < count; first += some) {
            const size_t at = (size_t)first * (size_t)c->outputs;
            const int8_t *block = patches;
            some = mps_at_most(c->block, count - first);
            if (in_place) {
                block = (const int8_t *)input + (size_t)first * (size_t)terms;
            } else if (points) {
                mps_take(&c->layer, input, (size_t)first * (size_t)terms, some * terms, patches);
            } else {
                gather_block(c, input, &y, &x, group * inputs, inputs, some, patches, row);
            }
            multiply(&w, block, row, some, at, (size_t)c->outputs);
        }
    }
}

void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input, const void *addend,
                          void *output) {
    const mps_layer *layer = &l->layer;
    const int in_place = layer->offset == 0 && layer->input_type == MPS_U8;
    int8_t *patches;
    work w = begin(layer, 0, l->outputs, l->inputs, scratch, addend, output, &patches);
    for (int first = 0, some; first < l->rows; first += some) {
        const size_t at = (size_t)first * (size_t)l->inputs;
        some = mps_at_most(l->block, l->rows - first);
        if (!in_place)
            mps_take(layer, input, at, some * l->inputs, patches);
        multiply(&w, in_place ? (const int8_t *)input + at : patches, l->inputs, some,
                 (size_t)first * (size_t)l->outputs, (size_t)l->outputs);
    }
}
