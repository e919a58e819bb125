/* Convolution and linear layers as products of pairs of output channels with the codes that one or
   two output positions see. Those lie in the image itself where it has them side by side (1x1, and
   rows of a linear layer), or else in patches: a few positions' codes, padded with the zero point,
   each up to a whole word. */
#include "finishing.h"
#include "pairs.h"

#define CHUNK 1024 /* terms that are unpacked at once; _CHUNK in cortex_m.py */

/* Products of two channels with some positions. */
typedef struct {
    const mps_layer *layer;
    const unsigned char *weights; /* as they are stored */
    unsigned char *unpacked;
    int words;    /* of each channel in place */
    int terms;    /* of each channel that are unpacked, at most CHUNK at once */
    size_t first; /* code of these; the second channel's follow */
    int32_t base[2];
    mps_channel channels[2];
    int bits, raise; /* those of the layer */
    int count;       /* of channels, 1 or 2 */
    int bytes;       /* results of one byte, in registers, without a sum */
    int clipped;     /* by less than a byte */
    const unsigned char *codes;
    size_t row; /* bytes from one position to the next */
    int positions;
    const void *addend;
    void *output;
    size_t at, stride; /* element of the output; to that of the next position */
} pair;

/* Of all pairs. `in_place`: words of weights are read where they are stored. */
typedef struct {
    int groups, outputs, terms; /* channels and terms of a group */
    int in_place;
} shapes;

static int at_most(int x, int limit) { return x < limit ? x : limit; }

/* The results of a pair that are not just bytes: channels a and b at positions 0 and 1. */
static MPS_APART void finish_any(const pair *p, size_t at, int positions, const int32_t *sums) {
    for (int position = 0; position < positions; position++, at += p->stride)
        for (int channel = 0; channel < p->count; channel++)
            mps_finish_one(p->layer, p->channels + channel, sums[2 * channel + position], p->addend,
                           p->output, at + (size_t)channel);
}

/* `terms` of the terms that are not in place, from the k-th on: the first channel's and the
   second's as words in turn, filled up with zeros. */
static MPS_APART void unpack(const pair *p, int k, int terms) {
    size_t start = p->first + (size_t)k;
    for (int channel = 0; channel < 2; channel++, start += (size_t)p->terms) {
        mps_reader codes = mps_reader_at(p->layer, start);
        unsigned char *word = p->unpacked + 4 * channel;
        int i = 0;
        for (; i < terms && channel < p->count; i++)
            word[i / 4 * 8 + i % 4] = (unsigned char)mps_next(&codes);
        for (; i < (terms + 3) / 4 * 4; i++)
            word[i / 4 * 8 + i % 4] = 0;
    }
}

static MPS_APART void multiply_pair(const pair *p) {
    const unsigned char *codes = p->codes;
    const mps_channel a = p->channels[0], b = p->channels[1];
    size_t at = p->at;
    for (int left = p->positions; left > 0; left -= 2) {
        const int two = left > 1, down = MPS_DSP ? 8 - p->bits : 0;
        mps_sums s = {0, 0, 0, 0, p->weights, codes, codes + p->row};
        int words = 0, next = 0;
        if (p->bits == 8)
            words = p->words;
        else if (p->words) {
            if (p->bits == 4)
                two ? mps_words(4, 1, p->words, &s) : mps_words(4, 0, p->words, &s);
            else
                two ? mps_words(2, 1, p->words, &s) : mps_words(2, 0, p->words, &s);
            s.a0 = (uint32_t)((int32_t)s.a0 >> down), s.a1 = (uint32_t)((int32_t)s.a1 >> down);
            s.b0 = (uint32_t)((int32_t)s.b0 >> down), s.b1 = (uint32_t)((int32_t)s.b1 >> down);
        }
        for (;;) { /* words of bytes in place, then those that are unpacked */
            two ? mps_words(8, 1, words, &s) : mps_words(8, 0, words, &s);
            if (next >= p->terms)
                break;
            words = at_most(CHUNK, p->terms - next);
            if (p->terms > CHUNK)
                unpack(p, next, words);
            next += words;
            words = (words + 3) / 4;
            s.w = p->unpacked;
        }
        s.a0 += (uint32_t)p->base[0], s.a1 += (uint32_t)p->base[0];
        s.b0 += (uint32_t)p->base[1], s.b1 += (uint32_t)p->base[1];
        if (p->bytes) {
            unsigned char *to = (unsigned char *)p->output + at, *beside = to + p->stride;
            int32_t a0, a1, b0, b1;
            if (p->raise)
                s.a0 <<= p->raise, s.a1 <<= p->raise, s.b0 <<= p->raise, s.b1 <<= p->raise;
            a0 = mps_code(&a, s.a0), a1 = mps_code(&a, s.a1);
            b0 = mps_code(&b, s.b0), b1 = mps_code(&b, s.b1);
            if (p->clipped) {
                const int32_t low = p->layer->low, high = p->layer->high;
                a0 = mps_within(a0, low, high), a1 = mps_within(a1, low, high);
                b0 = mps_within(b0, low, high), b1 = mps_within(b1, low, high);
            } else {
                a0 = mps_byte(a0), a1 = mps_byte(a1), b0 = mps_byte(b0), b1 = mps_byte(b1);
            }
            if (p->count == 1) {
                to[0] = (unsigned char)a0;
                if (two)
                    beside[0] = (unsigned char)a1;
            } else {
                to[0] = (unsigned char)a0, to[1] = (unsigned char)b0;
                if (two)
                    beside[0] = (unsigned char)a1, beside[1] = (unsigned char)b1;
            }
        } else {
            const int32_t sums[4] = {(int32_t)s.a0, (int32_t)s.a1, (int32_t)s.b0, (int32_t)s.b1};
            finish_any(p, at, 1 + two, sums);
        }
        codes += 2 * p->row, at += 2 * p->stride;
    }
}

/* The channels of a group for some positions; p has codes, row, positions, at and stride. */
static void multiply(pair *p, const shapes *s, int group) {
    const mps_layer *layer = p->layer;
    const int pairs = s->outputs / 2, bits = layer->bits;
    const int whole = s->in_place ? s->terms / (32 / bits) * (32 / bits) : 0;
    const size_t stored = (size_t)(2 * whole); /* of a pair, in place */
    const int rest = s->terms - whole, single = s->outputs % 2 * s->terms;
    size_t place = (size_t)(group * pairs) * stored;
    size_t next =
        (size_t)(s->groups * pairs) * stored + (size_t)group * (size_t)(2 * pairs * rest + single);
    const int top = group * s->outputs;
    for (int o = 0; o < s->outputs; o += 2, p->at += 2, place += stored) {
        p->count = at_most(2, s->outputs - o);
        p->terms = p->count == 2 ? rest : s->terms;
        p->words = p->count == 2 ? whole / (32 / bits) : 0;
        p->first = next;
        p->weights = layer->weights + place / 8 * (size_t)bits;
        next += (size_t)(p->count * p->terms);
        p->bytes = layer->output_type == MPS_U8 && !layer->sum;
        for (int i = 0; i < 2; i++) {
            const int channel = top + (i < p->count ? o + i : o);
            p->base[i] = layer->base ? layer->base[channel] : 0;
            p->channels[i] = mps_channel_of(layer, channel);
            p->bytes &= p->channels[i].shift > 0;
        }
        if (p->terms > 0 && p->terms <= CHUNK)
            unpack(p, 0, p->terms);
        multiply_pair(p);
    }
    p->at -= (size_t)(s->outputs + 1) / 2 * 2;
}

/* `count` codes from element `at` on. Words are copied where both sides lie as this processor can
   read them. */
static void copy(mps_type type, const unsigned char *from, size_t at, int count,
                 unsigned char *to) {
    if (type != MPS_U8) {
        for (int i = 0; i < count; i++)
            to[i] = (unsigned char)mps_get(from, type, at + (size_t)i);
        return;
    }
    from += at;
#if !defined(__ARM_FEATURE_UNALIGNED)
    if ((((uintptr_t)from | (uintptr_t)to) & 3) == 0)
#endif
    {
        for (; count >= 16; count -= 16, from += 16, to += 16)
            memcpy(to, from, 16);
        for (; count >= 4; count -= 4, from += 4, to += 4)
            memcpy(to, from, 4);
    }
    for (; count > 0; count--)
        *to++ = *from++;
}

static void pad(const mps_layer *layer, int count, unsigned char *to) {
    for (; count > 0; count--)
        *to++ = (unsigned char)layer->input_zero;
}

/* What output (y, x) sees of a group. */
static void gather(const mps_convolution *c, const unsigned char *image, int group, int y, int x,
                   unsigned char *to) {
    const mps_layer *layer = &c->layer;
    const int inputs = c->channels / c->groups, left = x * c->stride_x - c->left;
    const int beside = c->groups == 1 && c->dilation_x == 1;
    /* taps that are copied at once: those of a line, of which `before` and `after` lie outside */
    const int before = beside && left < 0 ? at_most(-left, c->kernel_width) : 0;
    const int after = beside && left + c->kernel_width > c->width
                          ? at_most(left + c->kernel_width - c->width, c->kernel_width - before)
                          : 0;
    int sy = y * c->stride_y - c->top;
    for (int ky = 0; ky < c->kernel_height; ky++, sy += c->dilation_y) {
        const size_t line = (size_t)sy * (size_t)c->width;
        if (sy < 0 || sy >= c->height) {
            pad(layer, c->kernel_width * inputs, to);
            to += c->kernel_width * inputs;
        } else if (beside) {
            const int taps = c->kernel_width - before - after;
            pad(layer, before * inputs, to);
            to += before * inputs;
            copy(layer->input_type, image, (line + (size_t)(left + before)) * (size_t)inputs,
                 taps * inputs, to);
            to += taps * inputs;
            pad(layer, after * inputs, to);
            to += after * inputs;
        } else {
            for (int kx = 0, sx = left; kx < c->kernel_width;
                 kx++, sx += c->dilation_x, to += inputs) {
                if (sx < 0 || sx >= c->width)
                    pad(layer, inputs, to);
                else
                    copy(layer->input_type, image,
                         (line + (size_t)sx) * (size_t)c->channels + (size_t)(group * inputs),
                         inputs, to);
            }
        }
    }
}

static size_t whole_words(int terms) { return (size_t)(terms + 3) / 4 * 4; }

static shapes shapes_of(const mps_layer *layer, int groups, int outputs, int terms) {
    shapes s;
    s.groups = groups, s.outputs = outputs, s.terms = terms;
    s.in_place = layer->bits == 8 || layer->bits == 4 || layer->bits == 2;
    return s;
}

/* The first bytes of the scratch are for unpacked weights. */
static pair pair_of(const mps_layer *layer, unsigned char *scratch, const void *addend,
                    void *output, size_t stride) {
    pair p;
    p.layer = layer;
    p.bits = layer->bits, p.raise = layer->raise;
    p.unpacked = scratch;
    p.clipped = layer->low > 0 || layer->high < 255;
    p.addend = addend, p.output = output, p.stride = stride;
    return p;
}

static size_t unpacked_bytes(const shapes *s, int bits) {
    const int terms = s->in_place && s->outputs % 2 == 0 ? s->terms % (32 / bits) : s->terms;
    return 2 * whole_words(at_most(terms, CHUNK));
}

void mps_convolve_patches(const mps_convolution *c, void *scratch, const void *input,
                          const void *addend, void *output) {
    const int inputs = c->channels / c->groups;
    const int count = c->output_height * c->output_width;
    const int points = c->kernel_height == 1 && c->kernel_width == 1 && c->groups == 1 &&
                       c->output_height == c->height && c->output_width == c->width &&
                       c->stride_y == 1 && c->stride_x == 1 && c->channels % 4 == 0 &&
                       c->layer.input_type == MPS_U8 && c->block == count;
    const shapes s = shapes_of(&c->layer, c->groups, c->outputs / c->groups,
                               inputs * c->kernel_height * c->kernel_width);
    pair p = pair_of(&c->layer, scratch, addend, output, (size_t)c->outputs);
    unsigned char *patches = (unsigned char *)scratch + unpacked_bytes(&s, c->layer.bits);
    p.row = whole_words(s.terms);
    if (points) {
        p.codes = input, p.positions = count, p.at = 0;
        multiply(&p, &s, 0);
        return;
    }
    p.codes = patches;
    for (int group = 0; group < c->groups; group++) {
        int y = 0, x = 0;
        for (int done = 0; done < count; done += p.positions) {
            p.positions = at_most(c->block, count - done);
            for (int i = 0; i < p.positions; i++) {
                gather(c, input, group, y, x, patches + (size_t)i * p.row);
                if (++x == c->output_width)
                    x = 0, y++;
            }
            p.at = (size_t)done * (size_t)c->outputs + (size_t)(group * s.outputs);
            multiply(&p, &s, group);
        }
    }
}

void mps_multiply_patches(const mps_linear *l, void *scratch, const void *input, const void *addend,
                          void *output) {
    const int in_place = l->inputs % 4 == 0 && l->layer.input_type == MPS_U8;
    const shapes s = shapes_of(&l->layer, 1, l->outputs, l->inputs);
    pair p = pair_of(&l->layer, scratch, addend, output, (size_t)l->outputs);
    unsigned char *patches = (unsigned char *)scratch + unpacked_bytes(&s, l->layer.bits);
    p.row = whole_words(l->inputs);
    for (int done = 0; done < l->rows; done += p.positions) {
        p.positions = in_place ? l->rows : at_most(l->block, l->rows - done);
        p.codes = in_place ? input : patches;
        for (int i = 0; i < p.positions && !in_place; i++)
            copy(l->layer.input_type, input, (size_t)(done + i) * (size_t)l->inputs, l->inputs,
                 patches + (size_t)i * p.row);
        p.at = (size_t)done * (size_t)l->outputs;
        multiply(&p, &s, 0);
    }
}
