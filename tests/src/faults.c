/*
 * A disk that fails on demand, loaded before the C library: the first letter in the file that
 * SEMILLA_TEST_FAULT names says how. 'f': full, nothing more is written. 'u': what is written is
 * never known to be on the disk. Only files are affected, no sockets or pipes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char fault(int file)
{
    struct stat status;
    const char *path = getenv("SEMILLA_TEST_FAULT");
    char said = '-';
    if (path == NULL || fstat(file, &status) != 0 || !S_ISREG(status.st_mode))
        return '-';
    int control = open(path, O_RDONLY | O_CLOEXEC);
    if (control < 0)
        return '-';
    if (read(control, &said, 1) != 1)
        said = '-';
    close(control);
    return said;
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define UNLESS(letter, failure, name, ...)                                                         \
    if (fault(file) == letter) {                                                                   \
        errno = failure;                                                                           \
        return -1;                                                                                 \
    }                                                                                              \
    return NEXT(name)(__VA_ARGS__);

ssize_t write(int file, const void *bytes, size_t count)
{
    UNLESS('f', ENOSPC, write, file, bytes, count)
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t place)
{
    UNLESS('f', ENOSPC, pwrite, file, bytes, count, place)
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t place)
{
    UNLESS('f', ENOSPC, pwrite64, file, bytes, count, place)
}

int fsync(int file)
{
    UNLESS('u', EIO, fsync, file)
}

int fdatasync(int file)
{
    UNLESS('u', EIO, fdatasync, file)
}
