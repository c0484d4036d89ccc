#!/bin/bash
# A batch script as it is: hyperion run examples/slurm.sh
#SBATCH --job-name=slurm
#SBATCH --nodes=2
#SBATCH --cpus-per-task=1
#SBATCH --mem=128M
#SBATCH --time=00:05:00
#SBATCH --output=slurm-%j.out

echo "task $SLURM_PROCID of $SLURM_NTASKS"
srun --label echo "hello from task $SLURM_PROCID"
