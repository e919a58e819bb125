/* pairs.h in assembly for Thumb-2: with DSP instructions, or with a multiplication for each
   product. Sums are in r1 to r4, weights at r5, codes at r6 and r7. */
#if MPS_DSP

/* A word of weights in a register: of bytes; what `UP` brings to the top of each byte; what is
   there already, the last of a word. */
#define MPS_BYTES(R, AT) "ldr " R ", [r5], #4\n\t"
#define MPS_FIRST(R, AT, UP, MASK) \
    "ldr " R ", [r5, #" AT "]\n\tlsl " R ", " R ", #" UP "\n\tand " R ", " R ", #" MASK "\n\t"
#define MPS_LAST(R, AT, MASK) "ldr " R ", [r5], #4\n\tand " R ", " R ", #" MASK "\n\t"
#define MPS_4_FIRST(R, AT) MPS_FIRST(R, AT, "4", "0xf0f0f0f0")
#define MPS_4_LAST(R, AT) MPS_LAST(R, AT, "0xf0f0f0f0")
#define MPS_2_FIRST(R, AT) MPS_FIRST(R, AT, "6", "0xc0c0c0c0")
#define MPS_2_SECOND(R, AT) MPS_FIRST(R, AT, "4", "0xc0c0c0c0")
#define MPS_2_THIRD(R, AT) MPS_FIRST(R, AT, "2", "0xc0c0c0c0")
#define MPS_2_LAST(R, AT) MPS_LAST(R, AT, "0xc0c0c0c0")

/* Four terms: 20 instructions for 16 products, 13 for 8. Words of codes become even and odd
   halfwords. */
#define MPS_TWO(GET)                                                                      \
    "ldr r0, [r6], #4\n\tldr r9, [r7], #4\n\t" GET(                                       \
        "r12", "0") "uxtb16 r10, r0\n\tuxtb16 r0, r0, ror #8\n\t"                         \
                    "uxtb16 r11, r9\n\tuxtb16 r9, r9, ror #8\n\t"                         \
                    "sxtb16 lr, r12\n\tsxtb16 r12, r12, ror #8\n\t"                       \
                    "smlad r1, r10, lr, r1\n\tsmlad r2, r11, lr, r2\n\t" GET(             \
                        "lr", "4") "smlad r1, r0, r12, r1\n\tsmlad r2, r9, r12, r2\n\t"   \
                                   "sxtb16 r12, lr\n\tsxtb16 lr, lr, ror #8\n\t"          \
                                   "smlad r3, r10, r12, r3\n\tsmlad r4, r11, r12, r4\n\t" \
                                   "smlad r3, r0, lr, r3\n\tsmlad r4, r9, lr, r4\n\t"
#define MPS_ONE(GET)                                                             \
    "ldr r0, [r6], #4\n\t" GET(                                                  \
        "r12", "0") "uxtb16 r10, r0\n\tuxtb16 r0, r0, ror #8\n\t"                \
                    "sxtb16 lr, r12\n\tsxtb16 r12, r12, ror #8\n\t"              \
                    "smlad r1, r10, lr, r1\n\t" GET(                             \
                        "lr", "4") "smlad r1, r0, r12, r1\n\t"                   \
                                   "sxtb16 r12, lr\n\tsxtb16 lr, lr, ror #8\n\t" \
                                   "smlad r3, r10, r12, r3\n\tsmlad r3, r0, lr, r3\n\t"
#define MPS_NEXT ""
#define MPS_FOUR(STEP) STEP STEP STEP STEP
#define MPS_TWICE(WORD) WORD WORD

#else

/* A weight in a register. */
#define MPS_BYTES(R, AT) "ldrsb " R ", [r5, #" AT "]\n\t"
#define MPS_FIELD(R, AT, START, BITS) \
    MPS_BYTES(R, AT) "sbfx " R ", " R ", #" START ", #" BITS "\n\t"
#define MPS_4_FIRST(R, AT) MPS_FIELD(R, AT, "0", "4")
#define MPS_4_LAST(R, AT) MPS_FIELD(R, AT, "4", "4")
#define MPS_2_FIRST(R, AT) MPS_FIELD(R, AT, "0", "2")
#define MPS_2_SECOND(R, AT) MPS_FIELD(R, AT, "2", "2")
#define MPS_2_THIRD(R, AT) MPS_FIELD(R, AT, "4", "2")
#define MPS_2_LAST(R, AT) MPS_FIELD(R, AT, "6", "2")
/* Four terms: 33 instructions for 16 products, 21 for 8. */
#define MPS_TWO_PRODUCTS(GET, A, B)                                                               \
    "ldrb r0, [r6], #1\n\tldrb r9, [r7], #1\n\t" GET("r10", A)                                    \
        GET("r11", B) "mla r1, r0, r10, r1\n\tmla r2, r9, r10, r2\n\tmla r3, r0, r11, r3\n\tmla " \
                      "r4, r9, r11, r4\n\t"
#define MPS_ONE_PRODUCT(GET, A, B)        \
    "ldrb r0, [r6], #1\n\t" GET("r10", A) \
        GET("r11", B) "mla r1, r0, r10, r1\n\tmla r3, r0, r11, r3\n\t"
#define MPS_TWO(GET)                \
    MPS_TWO_PRODUCTS(GET, "0", "4") \
    MPS_TWO_PRODUCTS(GET, "1", "5") MPS_TWO_PRODUCTS(GET, "2", "6") MPS_TWO_PRODUCTS(GET, "3", "7")
#define MPS_ONE(GET)               \
    MPS_ONE_PRODUCT(GET, "0", "4") \
    MPS_ONE_PRODUCT(GET, "1", "5") MPS_ONE_PRODUCT(GET, "2", "6") MPS_ONE_PRODUCT(GET, "3", "7")
#define MPS_NEXT "adds r5, #8\n\t"
#define MPS_FOUR(STEP) ""
#define MPS_TWICE(WORD) ""

#endif

#define MPS_STEPS_8(STEP) STEP(MPS_BYTES) MPS_NEXT
#define MPS_STEPS_4(STEP) STEP(MPS_4_FIRST) STEP(MPS_4_LAST) MPS_NEXT
#define MPS_STEPS_2(STEP) \
    STEP(MPS_2_FIRST) STEP(MPS_2_SECOND) STEP(MPS_2_THIRD) STEP(MPS_2_LAST) MPS_NEXT

#if MPS_DSP
/* Sums -> bytes, and to the next two positions, while `times` counts down. */
#define MPS_TO_BYTES                                                                  \
    "ldr r9, [r0, #36]\n\tcmp r9, #0\n\tbeq 6f\n\t"                                   \
    "add r12, r0, #40\n\tldm r12, {r5, r6, r7, r8, r9, r10, r11, r12}\n\t"            \
    "smmla r1, r1, r5, r7\n\tsmmla r2, r2, r5, r7\n\t"                                \
    "smmla r3, r3, r9, r11\n\tsmmla r4, r4, r9, r11\n\t"                              \
    "asr r1, r1, r8\n\tasr r2, r2, r8\n\tasr r3, r3, r12\n\tasr r4, r4, r12\n\t"      \
    "usat r1, #8, r1\n\tusat r2, #8, r2\n\tusat r3, #8, r3\n\tusat r4, #8, r4\n\t"    \
    "orr r1, r1, r3, lsl #8\n\torr r2, r2, r4, lsl #8\n\torr r1, r1, r2, lsl #16\n\t" \
    "ldrd r5, r6, [r0, #72]\n\tldrd r7, r8, [r0, #80]\n\tldr r9, [r0, #88]\n\t"       \
    "uqadd8 r1, r1, r5\n\tuqsub8 r1, r1, r6\n\tuqadd8 r1, r1, r7\n\t"                 \
    "strh r1, [r8]\n\tlsr r1, r1, #16\n\tstrh r1, [r8, r9]\n\t"                       \
    "add r8, r8, r9, lsl #1\n\tstr r8, [r0, #84]\n\t"                                 \
    "ldrd r5, r6, [r0, #20]\n\tadd r5, r5, r6, lsl #1\n\tstr r5, [r0, #20]\n\t"       \
    "ldr r9, [r0, #36]\n\tsubs r9, r9, #1\n\tstr r9, [r0, #36]\n\tbne 1b\n\tb 7f\n\t"
/* Weights were multiplied by 2^DOWN. */
#define MPS_DOWN(DOWN)                                                                      \
    "ldrd r8, r9, [r0, #92]\n\tadd r1, r8, r1, asr #" DOWN "\n\tadd r2, r8, r2, asr #" DOWN \
    "\n\tadd r3, r9, r3, asr #" DOWN "\n\tadd r4, r9, r4, asr #" DOWN "\n\t"
#else
#define MPS_TO_BYTES ""
#define MPS_DOWN(DOWN) ""
#endif

/* All words: first `FOUR`, four steps at a time, then `WORD`; what follows with their sums. Some
   compile with r7 as frame pointer: compilers are not told that it changes. */
#define MPS_WORDS(NAME, FOUR, WORD, DOWN, ON)                                                   \
    static MPS_APART void NAME(mps_sums *sums) {                                                \
        register mps_sums *s __asm__("r0") = sums;                                              \
        __asm__ volatile("push {r0, r7}\n\t"                                                    \
                         "1:\n\tldm r0, {r1, r2, r3, r4, r5, r6, r7, r8}\n\t"                   \
                         "add r7, r6, r7\n\tcmp r5, r8\n\tbeq 3f\n\t"                           \
                         "2:\n\t" FOUR "cmp r5, r8\n\tbne 2b\n\t"                               \
                         "3:\n\tldr r0, [sp]\n\tldr r8, [r0, #32]\n\t"                          \
                         "cmp r5, r8\n\tbeq 5f\n\t"                                             \
                         "4:\n\t" WORD "cmp r5, r8\n\tbne 4b\n\tldr r0, [sp]\n\t"               \
                         "5:\n\t" DOWN ON "6:\n\tstm r0, {r1, r2, r3, r4, r5, r6}\n\t"          \
                         "7:\n\tpop {r0, r7}"                                                   \
                         : "+r"(s)                                                              \
                         :                                                                      \
                         : "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r9", "r10", "r11", "r12", \
                           "lr", "memory", "cc");                                               \
    }
MPS_WORDS(mps_words_8_2, MPS_FOUR(MPS_STEPS_8(MPS_TWO)), MPS_STEPS_8(MPS_TWO), "", MPS_TO_BYTES)
MPS_WORDS(mps_words_8_1, MPS_FOUR(MPS_STEPS_8(MPS_ONE)), MPS_STEPS_8(MPS_ONE), "", "")
#ifndef MPS_WITHOUT_4
MPS_WORDS(mps_words_4_2, MPS_TWICE(MPS_STEPS_4(MPS_TWO)), MPS_STEPS_4(MPS_TWO), MPS_DOWN("4"),
          MPS_TO_BYTES)
MPS_WORDS(mps_words_4_1, MPS_TWICE(MPS_STEPS_4(MPS_ONE)), MPS_STEPS_4(MPS_ONE), MPS_DOWN("4"), "")
#endif
#ifndef MPS_WITHOUT_2
MPS_WORDS(mps_words_2_2, "", MPS_STEPS_2(MPS_TWO), MPS_DOWN("6"), MPS_TO_BYTES)
MPS_WORDS(mps_words_2_1, "", MPS_STEPS_2(MPS_ONE), MPS_DOWN("6"), "")
#endif
