/* pairs.h in assembly for Armv6-M. */
/* On Armv6-M eight registers multiply and the upper ones hold the sums, which compilers do not do
   when they optimize for size. 4 instructions for a product. */
#define MPS_WEIGHT(AT, UP, DOWN) \
    "ldrb %[a], [%[w], #" AT "]\n\tlsls %[a], %[a], #" UP "\n\tasrs %[a], %[a], #" DOWN "\n\t"
#define MPS_TWICE(SUM0, SUM1)                                                                     \
    "movs %[t], %[a]\n\tmuls %[t], %[x], %[t]\n\tadd " SUM0 ", %[t]\n\tmuls %[a], %[y], %[a]\n\t" \
    "add " SUM1 ", %[a]\n\t"
#define MPS_ONCE(SUM) "muls %[a], %[x], %[a]\n\tadd " SUM ", %[a]\n\t"
#define MPS_TERM_2(X, A, B, UP, DOWN)                                                      \
    "ldrb %[x], [%[x0], #" X "]\n\tldrb %[y], [%[x1], #" X "]\n\t" MPS_WEIGHT(A, UP, DOWN) \
        MPS_TWICE("r8", "r9") MPS_WEIGHT(B, UP, DOWN) MPS_TWICE("r10", "r11")
#define MPS_TERM_1(X, A, B, UP, DOWN)                                       \
    "ldrb %[x], [%[x0], #" X "]\n\t" MPS_WEIGHT(A, UP, DOWN) MPS_ONCE("r8") \
        MPS_WEIGHT(B, UP, DOWN) MPS_ONCE("r10")
#define MPS_QUAD(TERM, X0, X1, X2, X3, UP, DOWN) \
    TERM(X0, "0", "4", UP, DOWN)                 \
    TERM(X1, "1", "5", UP, DOWN) TERM(X2, "2", "6", UP, DOWN) TERM(X3, "3", "7", UP, DOWN)

#define MPS_WORDS(NAME, BODY, CODES)                                                              \
    static MPS_APART void NAME(mps_sums *s) {                                                     \
        const unsigned char *w = s->w, *x0 = s->x, *x1 = s->x + s->row;                           \
        mps_sums *t = s;                                                                          \
        uint32_t x, y, a;                                                                         \
        if (w == s->end)                                                                          \
            return;                                                                               \
        __asm__ volatile(                                                                         \
            ".syntax unified\n\t"                                                                 \
            "mov %[x], r8\n\tpush {%[x]}\n\tmov %[x], r9\n\tpush {%[x]}\n\t"                      \
            "mov %[x], r10\n\tpush {%[x]}\n\tmov %[x], r11\n\tpush {%[x]}\n\tpush {%[t]}\n\t"     \
            "ldr %[x], [%[t]]\n\tmov r8, %[x]\n\tldr %[x], [%[t], #4]\n\tmov r9, %[x]\n\t"        \
            "ldr %[x], [%[t], #8]\n\tmov r10, %[x]\n\tldr %[x], [%[t], #12]\n\tmov r11, %[x]\n\t" \
            "ldr %[x], [%[t], #32]\n\tmov r12, %[x]\n\t"                                          \
            "1:\n\t" BODY "adds %[w], #8\n\tadds %[x0], #" CODES "\n\tadds %[x1], #" CODES        \
            "\n\tcmp %[w], r12\n\tbeq 2f\n\tb 1b\n\t"                                             \
            "2:\n\tpop {%[t]}\n\tmov %[x], r8\n\tstr %[x], [%[t]]\n\t"                            \
            "mov %[x], r9\n\tstr %[x], [%[t], #4]\n\tmov %[x], r10\n\tstr %[x], [%[t], #8]\n\t"   \
            "mov %[x], r11\n\tstr %[x], [%[t], #12]\n\tpop {%[x]}\n\tmov r11, %[x]\n\t"           \
            "pop {%[x]}\n\tmov r10, %[x]\n\tpop {%[x]}\n\tmov r9, %[x]\n\tpop {%[x]}\n\t"         \
            "mov r8, %[x]"                                                                        \
            : [w] "+l"(w), [x0] "+l"(x0), [x1] "+l"(x1), [t] "+l"(t), [x] "=&l"(x), [y] "=&l"(y), \
              [a] "=&l"(a)                                                                        \
            :                                                                                     \
            : "memory", "cc", "r12");                                                             \
        t->x = x0;                                                                                \
    }

#define MPS_QUAD_8(TERM) MPS_QUAD(TERM, "0", "1", "2", "3", "24", "24")
#define MPS_QUADS_4(TERM)                          \
    MPS_QUAD(TERM, "0", "1", "2", "3", "28", "28") \
    MPS_QUAD(TERM, "4", "5", "6", "7", "24", "28")
#define MPS_QUADS_2(TERM)                            \
    MPS_QUAD(TERM, "0", "1", "2", "3", "30", "30")   \
    MPS_QUAD(TERM, "4", "5", "6", "7", "28", "30")   \
    MPS_QUAD(TERM, "8", "9", "10", "11", "26", "30") \
    MPS_QUAD(TERM, "12", "13", "14", "15", "24", "30")

MPS_WORDS(mps_words_8_2, MPS_QUAD_8(MPS_TERM_2), "4")
MPS_WORDS(mps_words_8_1, MPS_QUAD_8(MPS_TERM_1), "4")
#ifndef MPS_WITHOUT_4
MPS_WORDS(mps_words_4_2, MPS_QUADS_4(MPS_TERM_2), "8")
MPS_WORDS(mps_words_4_1, MPS_QUADS_4(MPS_TERM_1), "8")
#endif
#ifndef MPS_WITHOUT_2
MPS_WORDS(mps_words_2_2, MPS_QUADS_2(MPS_TERM_2), "16")
MPS_WORDS(mps_words_2_1, MPS_QUADS_2(MPS_TERM_1), "16")
#endif
