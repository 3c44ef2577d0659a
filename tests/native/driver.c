/*
 * Runs steps and plans for another process, which sends them and the memory they refer to: tests/emulation.py. That is how the
 * library is tested on a processor that is emulated.
 */
#include "kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int32_t sparsec_abi(void);
int32_t sparsec_isas(void);
const sparsec_kernel *sparsec_kernels(int32_t isa);
int64_t sparsec_scratch(const sparsec_kernel *kernels, const sparsec_step *step);
sparsec_pool *sparsec_pool_new(int32_t threads);
void sparsec_pool_free(sparsec_pool *pool);
void sparsec_run(const sparsec_call *c);

enum { ALIGNMENT = 64 };

/* What is asked for. The image of the memory follows, and the places in it of pointers, which are places in it themselves. */
typedef struct {
    int64_t bytes, pointers; /* of the image; how many */
    int64_t step;            /* where a step is of which the scratch memory is asked for, or negative */
    int64_t plan;            /* where a plan is */
    int64_t memory, advance; /* where the memories and their advances are */
    int64_t times, threads;
    int64_t results; /* from here on the image is sent back; the arena is the last in it */
    int64_t scratch; /* bytes that are wanted behind it */
} request;

static void receive(void *to, size_t bytes) {
    if (fread(to, 1, bytes, stdin) != bytes) exit(EXIT_FAILURE);
}

static void answer(const void *from, size_t bytes) {
    if (fwrite(from, 1, bytes, stdout) != bytes || fflush(stdout)) exit(EXIT_FAILURE);
}

static char *allocate(size_t bytes) {
    char *memory = aligned_alloc(ALIGNMENT, (bytes / ALIGNMENT + 1) * ALIGNMENT);
    if (!memory) exit(EXIT_FAILURE);
    return memory;
}

static char *receive_image(const request *r) {
    char *image = allocate(r->bytes + r->scratch);
    receive(image, r->bytes);
    for (int64_t i = 0; i < r->pointers; i++) {
        int64_t at;
        uintptr_t pointer;
        receive(&at, sizeof at);
        memcpy(&pointer, image + at, sizeof pointer);
        pointer += (uintptr_t)image;
        memcpy(image + at, &pointer, sizeof pointer);
    }
    return image;
}

static void run(const request *r, const sparsec_kernel *kernels, char *image) {
    sparsec_plan *plan = (sparsec_plan *)(image + r->plan);
    plan->kernels = kernels;
    sparsec_pool *pool = sparsec_pool_new((int32_t)r->threads);
    float *const *memory = (float *const *)(image + r->memory);
    sparsec_run(&(sparsec_call){plan, memory, (const int64_t *)(image + r->advance), r->times, pool});
    sparsec_pool_free(pool);
    answer(image + r->results, r->bytes - r->results);
}

int main(void) {
    const int32_t about[] = {sparsec_abi(), sparsec_isas()};
    answer(about, sizeof about);
    const sparsec_kernel *kernels = sparsec_kernels(about[1]);
    for (request r; fread(&r, sizeof r, 1, stdin) == 1;) {
        char *image = receive_image(&r);
        if (r.step >= 0) {
            const int64_t scratch = sparsec_scratch(kernels, (const sparsec_step *)(image + r.step));
            answer(&scratch, sizeof scratch);
        } else {
            run(&r, kernels, image);
        }
        free(image);
    }
    return EXIT_SUCCESS;
}
