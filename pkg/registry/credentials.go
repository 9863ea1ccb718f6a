// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli/config"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// Credentials finds credentials where Docker and the containers tools keep them. The first of these files that
// has some for the repository, for a path above it, or for its registry is used: $REGISTRY_AUTH_FILE,
// $DOCKER_CONFIG/config.json (~/.docker/config.json), $XDG_RUNTIME_DIR/containers/auth.json,
// ~/.config/containers/auth.json. A file that cannot be read and a credential helper that fails are errors:
// going on without credentials could reach another image.
func Credentials() authn.Keychain { return keychain{} }

type keychain struct{}

func (keychain) Resolve(target authn.Resource) (authn.Authenticator, error) {
	for _, path := range credentialFiles() {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		cf, err := config.LoadFromReader(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		cf.Filename = path
		a, err := lookUpIn(cf, target)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if a != (types.AuthConfig{}) {
			return authn.FromConfig(authn.AuthConfig{Username: a.Username, Password: a.Password, Auth: a.Auth,
				IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}), nil
		}
	}
	return authn.Anonymous, nil
}

func credentialFiles() (paths []string) {
	home, _ := os.UserHomeDir() // without a home there is nothing in it
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		paths = append(paths, f)
	}
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		paths = append(paths, filepath.Join(d, "config.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".docker", "config.json"))
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		paths = append(paths, filepath.Join(d, "containers", "auth.json"))
	}
	if d := os.Getenv("XDG_CONFIG_HOME"); d != "" {
		paths = append(paths, filepath.Join(d, "containers", "auth.json"))
	} else if home != "" {
		paths = append(paths, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	return paths
}

// lookUpIn tries the repository, the paths above it and the registry. Helpers know registries only.
func lookUpIn(cf *configfile.ConfigFile, target authn.Resource) (types.AuthConfig, error) {
	host := target.RegistryStr()
	hosts := []string{host}
	if host == name.DefaultRegistry {
		hosts = []string{"docker.io", host, authn.DefaultAuthKey}
	}
	for _, h := range hosts {
		for key := h + strings.TrimPrefix(target.String(), host); ; {
			_, inFile := cf.AuthConfigs[key]
			if inFile || key == h {
				a, err := cf.GetAuthConfig(key)
				if err != nil {
					return types.AuthConfig{}, err
				}
				a.ServerAddress = ""
				if a != (types.AuthConfig{}) {
					return a, nil
				}
			}
			i := strings.LastIndexByte(key, '/')
			if key == h || i < len(h) {
				break
			}
			key = key[:i]
		}
	}
	return types.AuthConfig{}, nil
}
