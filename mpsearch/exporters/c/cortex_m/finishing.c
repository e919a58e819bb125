/* Results of any type, with and without a sum. */
#include "finishing.h"

#define LARGEST_SHIFT 22 /* of a zero point of 8 bits, within 32 */

mps_channel mps_channel_of(const mps_layer *layer, int channel) {
    mps_channel c;
    c.scale = mps_scale_of(layer, channel);
    c.added = 0;
    c.shift = c.scale.shift + layer->raise - 32;
    if (layer->rounding != MPS_HALF_UP || layer->raise > 30 || c.shift < 1 ||
        c.shift > LARGEST_SHIFT || layer->output_zero < 0 || layer->output_zero > 255)
        c.shift = 0;
    else
        c.added = (1 << (c.shift - 1)) + (layer->output_zero << c.shift);
    return c;
}

void mps_finish_one(const mps_layer *layer, const mps_channel *c, int32_t x, const void *addend,
                    void *output, size_t at) {
    const mps_sum *s = layer->sum;
    mps_type type = layer->output_type;
    int32_t code;
    if (c->shift)
        code = mps_within(mps_code(c, (uint32_t)x << layer->raise), layer->low, layer->high);
    else
        code = mps_finish(layer, c->scale, x);
    if (s) {
        const int32_t other = mps_get(addend, s->addend_type, at);
        const int64_t sum = (int64_t)code * s->multiplier + (int64_t)other * s->other +
                            (int64_t)s->offset * (INT64_C(1) << s->raise);
        code = mps_clip(mps_shift_round(sum, s->shift) + s->output_zero, s->low, s->high);
        type = s->output_type;
    }
    mps_set(output, type, at, code);
}
